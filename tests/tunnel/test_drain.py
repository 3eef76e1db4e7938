"""The message `drain`: what goes out comes in, and nothing else does."""

from __future__ import annotations

import pytest

from tunnel.drain import ALL, Drain
from tunnel.errors import ProtocolError
from tunnel.limits import KIB
from tunnel.messages import parse_message


@pytest.mark.parametrize("drain", [Drain(0), Drain(7, "https://stub-2:8444"), Drain(ALL)], ids=str)
def test_round_trips(drain: Drain) -> None:
    assert Drain.parse(parse_message(drain.encode(), KIB)) == drain


def test_without_an_address_it_is_what_older_ends_say() -> None:
    assert parse_message(Drain(7).encode(), KIB) == {"kind": "drain", "last": 7}


@pytest.mark.parametrize(
    "fields", [{}, {"last": -1}, {"last": ALL + 1}, {"last": "1"}, {"last": 1, "address": "x" * 254}], ids=str
)
def test_malformed(fields: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        Drain.parse({"kind": "drain"} | fields)
