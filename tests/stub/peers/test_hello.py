"""What replicas say first, written and read."""

from __future__ import annotations

from typing import Any

import pytest

from stub.peers.hello import ADOPT, MAX_GREETING, OWN, SESSION, Adopted, PeerHello, PeerWelcome
from tunnel.errors import ProtocolError
from tunnel.handshake import Challenge, Refused
from tunnel.messages import encode_message, parse_message

CHALLENGE = Challenge("nonce", (1,), 0, "server-1")
AGENTS = {"kind": "hello", "version": 1, "nested": {"a": [1, "é\ud800"]}}
HELLOS = [
    PeerHello("r", "o", SESSION, credit=65_536),
    PeerHello("r", "o", OWN, session="s", secret="t", link_id=2**63 - 1),
    PeerHello("r", "o", ADOPT, adopted=Adopted(CHALLENGE, AGENTS, "10.0.0.1:5", b"\x00der")),
    PeerHello("r", "o", ADOPT, adopted=Adopted(CHALLENGE, AGENTS, "")),
]


@pytest.mark.parametrize("hello", HELLOS, ids=["session", "own", "adopt", "without a certificate"])
def test_a_hello_is_read_as_it_was_written(hello: PeerHello) -> None:
    assert PeerHello.parse(parse_message(hello.encode(), MAX_GREETING)) == hello


def test_the_largest_hello_of_an_agent_fits() -> None:
    agents = parse_message(encode_message("hello", x="").replace(b'""', b'"' + 4000 * "é".encode() + b'"'), 8192)
    hello = PeerHello("r" * 253, "o" * 253, ADOPT, adopted=Adopted(CHALLENGE, agents, "x" * 128, b"c" * 6000))
    assert PeerHello.parse(parse_message(hello.encode(), MAX_GREETING)) == hello


def test_secrets_and_what_an_agent_said_are_in_no_repr() -> None:
    for said in HELLOS:
        assert "'t'" not in repr(said)
        assert "nested" not in repr(said)
    assert "hush" not in repr(PeerWelcome(1, "s", "hush", 1024, 1, 1, 1))


def fields(**changes: Any) -> dict[str, Any]:
    """An adoption as parsed, but for `changes`."""
    return parse_message(HELLOS[2].encode(), MAX_GREETING) | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"hello": "text"}, {"hello": None}, {"hello": {}}, {"hello": {"kind": 1}}, {"nonce": 1}, {"epoch": -1},
        {"epoch": "1"}, {"offered": "1"}, {"offered": None}, {"server": None}, {"certificate": "+"}, {"certificate": 1},
        {"address": "a\nb"}, {"address": None}, {"versions": 1}, {"versions": [1] * 65}, {"identity": None}, {"to": 5},
        {"link": "x"}, {"link": SESSION}, {"link": OWN}, {"kind": "hello"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_malformed_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        PeerHello.parse(fields(**changes))


def test_versions() -> None:
    assert HELLOS[0].version() == 1
    with pytest.raises(Refused, match="replica o speaks version 1"):
        PeerHello("r", "o", SESSION, versions=()).version()


def test_a_welcome_is_read_as_it_was_written() -> None:
    whole, bare = PeerWelcome(1, "s", "t", 65_536, 100, 10, 2), PeerWelcome(1)
    assert PeerWelcome.parse(parse_message(whole.encode(), 999), session=True) == whole
    assert PeerWelcome.parse(parse_message(bare.encode(), 999), session=False) == bare
    with pytest.raises(ProtocolError):
        PeerWelcome.parse(parse_message(bare.encode(), 999), session=True)
    with pytest.raises(ProtocolError, match="version 2"):
        PeerWelcome.parse({"kind": "welcome", "version": 2}, session=False)
    with pytest.raises(ProtocolError):
        PeerWelcome.parse({"kind": "challenge"}, session=False)
    with pytest.raises(Refused, match="no room"):
        PeerWelcome.parse({"kind": "refused", "reason": "x", "message": "no room"}, session=True)
