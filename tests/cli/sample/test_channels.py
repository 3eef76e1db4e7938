"""The channel protocols, as bytes."""

from __future__ import annotations

import json

import pytest

from cli.sample.channels import (
    V4,
    V5,
    ChannelError,
    EndOfInput,
    Input,
    Resize,
    decode,
    exit_status,
    failure,
)
from cli.sample.status import internal


def test_input_is_on_the_first_channel() -> None:
    assert decode(b"\x00abc", V4) == Input(b"abc")


def test_a_size_is_json_on_the_fifth() -> None:
    assert decode(b'\x04{"Width":80,"Height":24}', V5) == Resize(80, 24)


def test_the_end_of_input_is_known_to_v5_alone() -> None:
    assert decode(b"\xff\x00", V5) == EndOfInput()
    with pytest.raises(ChannelError):
        decode(b"\xff\x00", V4)


BAD = [b"", b"\x01x", b"\x07", b"\xff\x01", b"\xff", b"\x04", b"\x04[]", b'\x04{"Width":-1,"Height":1}']


@pytest.mark.parametrize("message", BAD)
def test_what_the_protocol_does_not_know_is_an_error(message: bytes) -> None:
    with pytest.raises(ChannelError):
        decode(message, V5)


def test_success_and_failure_go_to_the_error_channel() -> None:
    assert exit_status(0)[0] == exit_status(1)[0] == failure(internal("x"))[0] == 3
    assert json.loads(exit_status(2)[1:])["details"]["causes"][0]["message"] == "2"
