"""Challenge, hello, welcome and refused: what goes out comes in, and nothing else does."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from tunnel.errors import ProtocolError
from tunnel.handshake import MAX_SILENCE, MAX_WAIT, Challenge, Hello, Refused, Wait, Welcome
from tunnel.limits import KIB
from tunnel.messages import parse_message

CHALLENGE = Challenge("n" * 43, (1,), 7, "stub-0")
SHARED = Hello(
    1, "shared", "tunnel.example", "m" * 43, "p" * 43,
    cluster="berlin", cluster_id="1234", agent="agent-0", instance="0" * 32, certificate="c" * 900,
    software="kulvert/1", credit=64 * KIB, exchanges=100, links=8, supersedes="f" * 32, supersedes_proof="q" * 43,
)  # fmt: skip
OWN = Hello(1, "own", "tunnel.example", "m" * 43, "p" * 43, session="f" * 32, link_id=2**64 - 1)
WELCOME = Welcome(1, "f" * 32, "s" * 43, 64 * KIB, 100, "wss://stub-1/", "stub-1", "-----BEGIN\nCERT\n")


def said(message: Challenge | Hello | Welcome | Refused) -> dict[str, Any]:
    return parse_message(message.encode(), 8 * KIB)


def test_round_trips() -> None:
    assert Challenge.parse(said(CHALLENGE)) == CHALLENGE
    assert Hello.parse(said(SHARED)) == SHARED
    assert Hello.parse(said(OWN)) == OWN
    assert Welcome.parse(said(WELCOME), own=False) == WELCOME
    assert Welcome.parse(said(Welcome(1)), own=True) == Welcome(1)


def test_a_link_id_is_a_string_since_json_numbers_are_not_64_bits_everywhere() -> None:
    assert said(OWN)["linkId"] == "18446744073709551615"


def test_what_is_not_set_is_not_said() -> None:
    plain = dataclasses.replace(SHARED, supersedes="", supersedes_proof="")
    assert "supersedes" not in said(plain)
    assert Hello.parse(said(plain)) == plain
    assert "address" not in said(dataclasses.replace(WELCOME, address="", server_name=""))


def test_unknown_fields_are_ignored() -> None:
    assert Hello.parse(said(SHARED) | {"later": [1]}) == SHARED


def test_refused_is_raised() -> None:
    with pytest.raises(Refused) as caught:
        Welcome.parse(said(Refused("moved", "not here", "stub-2:8443", 5)), own=True)
    assert (caught.value.reason, caught.value.address, caught.value.retry_after) == ("moved", "stub-2:8443", 5)


def test_a_secret_is_in_no_representation() -> None:
    assert WELCOME.secret not in repr(WELCOME)


@pytest.mark.parametrize(("versions", "chosen"), [((1,), 1), ((1, 2, 9), 1), ((0, 1), 1)])
def test_the_highest_common_version(versions: tuple[int, ...], chosen: int) -> None:
    assert dataclasses.replace(CHALLENGE, versions=versions).version() == chosen


@pytest.mark.parametrize("versions", [(), (2, 3)])
def test_no_common_version_is_said(versions: tuple[int, ...]) -> None:
    with pytest.raises(ProtocolError, match="upgrade one of them"):
        dataclasses.replace(CHALLENGE, versions=versions).version()


@pytest.mark.parametrize("versions", [[True], ["1"], [1.0], [None]])
def test_versions_that_are_none(versions: list[object]) -> None:
    with pytest.raises(ProtocolError):
        Challenge.parse(said(CHALLENGE) | {"versions": versions}).version()


BAD: dict[str, list[Any]] = {
    "kind": ["welcome", "hi"],
    "link": ["third", "", None],
    "version": [-1, 256, "1", None, True],
    "name": ["x" * 254, "a\nb", None, 3],
    "nonce": ["x" * 65, None],
    "proof": ["x" * 193, None, "\n"],
    "cluster": ["x" * 64, "a\n", None],
    "clusterId": ["x" * 65, None],
    "agent": ["x" * 254, "\0"],
    "instance": ["x" * 33, None],
    "certificate": ["x" * 4097, None, "a\nb", 1],
    "software": ["x" * 129, 1],
    "credit": [1023, 2**32 + 1, "65536", None],
    "exchanges": [0, 10**6 + 1, None],
    "links": [-1, 10**6 + 1, None, 1.5],
    "supersedes": ["x", [1], {"session": 1}, {"session": "x" * 65}, {"proof": "x" * 65}],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, bad in BAD.items() for value in bad])
def test_a_malformed_hello(field: str, value: object) -> None:
    with pytest.raises(ProtocolError):
        Hello.parse(said(SHARED) | {field: value})


@pytest.mark.parametrize("value", ["0", "-1", "18446744073709551616", "١", "1.0", "", " 1", "x", 5, None, "0" * 21])
def test_a_malformed_link_id(value: object) -> None:
    with pytest.raises(ProtocolError):
        Hello.parse(said(OWN) | {"linkId": value})


@pytest.mark.parametrize("field", ["nonce", "versions", "epoch", "server"])
def test_a_challenge_without_a_field(field: str) -> None:
    message = said(CHALLENGE)
    del message[field]
    with pytest.raises(ProtocolError):
        Challenge.parse(message)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "hello"),
        ("version", 0),
        ("session", None),
        ("secret", 1),
        ("credit", 0),
        ("exchanges", 0),
        ("address", "x"),
        ("address", {"url": 1}),
        ("trust", 1),
        ("trust", "\0"),
        ("trust", "ü"),
        ("trust", "x" * (32 * KIB + 1)),
    ],
)
def test_a_malformed_welcome(field: str, value: object) -> None:
    with pytest.raises(ProtocolError):
        Welcome.parse(said(WELCOME) | {field: value}, own=False)


@pytest.mark.parametrize(("field", "value"), [("reason", 1), ("message", "x" * 1025), ("retryAfter", 86_401)])
def test_a_malformed_refusal(field: str, value: object) -> None:
    with pytest.raises(ProtocolError):
        Welcome.parse(said(Refused("proof", "no")) | {field: value}, own=True)


def test_a_hello_fits_its_limit() -> None:
    wide = {"name": 253, "cluster": 63, "agent": 253, "software": 128, "certificate": 4096, "proof": 192}
    widest: dict[str, Any] = {
        field.name: "x" * wide.get(field.name, 64)
        for field in dataclasses.fields(SHARED)
        if isinstance(field.default, str) or field.name in ("name", "nonce", "proof")
    }
    hello = dataclasses.replace(SHARED, **widest | {"instance": "x" * 32})
    assert len(json.dumps(said(hello))) < 8 * KIB


# --- several replicas


def test_a_welcome_says_which_holding_it_is_and_how_long_the_stub_may_be_silent() -> None:
    welcome = dataclasses.replace(WELCOME, epoch=2**62, silence=4.5)
    assert said(welcome)["silenceMs"] == 4500
    assert Welcome.parse(said(welcome), own=False) == welcome


def test_what_an_older_server_does_not_say_is_no_epoch_and_no_promise() -> None:
    old = Welcome.parse(said(WELCOME), own=False)
    assert (old.epoch, old.silence) == (None, 0.0)
    assert not {"epoch", "silenceMs"} & said(WELCOME).keys()


@pytest.mark.parametrize(
    "fields",
    [
        {"epoch": -1},
        {"epoch": None},
        {"epoch": "7"},
        {"silenceMs": -1},
        {"silenceMs": MAX_SILENCE + 1},
        {"silenceMs": 0.5},
    ],
    ids=str,
)
def test_a_malformed_holding_or_promise(fields: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        Welcome.parse(said(WELCOME) | fields, own=False)


@pytest.mark.parametrize(("seconds", "told"), [(0.2, 1), (15.0, 15), (3600.0, MAX_WAIT)])
def test_a_wait_is_bounded(seconds: float, told: int) -> None:
    message = parse_message(Wait(seconds).encode(), KIB)
    assert message == {"kind": "wait", "seconds": told}
    assert Wait.parse(message) == Wait(told)


@pytest.mark.parametrize("seconds", [0, -1, MAX_WAIT + 1, "5", None, 1.5])
def test_a_wait_that_is_malformed(seconds: object) -> None:
    with pytest.raises(ProtocolError):
        Wait.parse({"kind": "wait", "seconds": seconds})
