"""What an agent takes from a stub before its link is attached, and what not: the stub is scripted here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from agent.attaching import AttachFailed, LinkGreeting
from tunnel import proof
from tunnel.adapter import LinkConnection
from tunnel.batch import Batch
from tunnel.errors import ExchangeReset, ProtocolError, TunnelError
from tunnel.frames import CONTROL, DATA, HEADER, PING, encode
from tunnel.handshake import Challenge, Hello, Refused, Welcome
from tunnel.limits import LinkLimits
from tunnel.link import Link

NONCE = proof.encode(b"n" * 32)
CHALLENGE = encode(CONTROL, payload=Challenge(NONCE, (1,), 7, "stub-1").encode())
WELCOME = encode(CONTROL, payload=Welcome(1, "a" * 32, NONCE, 65_536, 100).encode())
LIMITS = LinkLimits()


class Plain:
    """A carriage that adds nothing: what is written is what the link said."""

    open = True
    ended = False

    def begin(self) -> bytes:
        return b""

    def receive(self, data: bytes) -> list[bytes]:
        return [data]

    def wrap(self, pieces: list[bytes]) -> bytes:
        return b"".join(pieces)

    def pending(self) -> bytes:
        return b""

    def close(self) -> bytes:
        return b""


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


class Frames:
    """The receiver of the attached link."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, bytes]] = []

    def handle(self, link: Link, kind: int, flags: int, exchange: int, payload: bytes) -> None:
        self.seen.append((kind, payload))


class Talk:
    """One connection, from the agent's side."""

    def __init__(self, *, own: bool = False, answer: Callable[[Challenge], Hello] | None = None) -> None:
        self.frames = Frames()
        self.greeting = LinkGreeting(answer or self._answer, self._admit, own=own)
        batch = Batch(asyncio.get_running_loop().call_soon)
        self.connection = LinkConnection(Plain(), self.greeting, batch, LIMITS)
        self.wire = Wire()
        self.connection.connection_made(self.wire)
        self.refuse: TunnelError | None = None
        self.admitted: list[Welcome] = []

    def _answer(self, challenge: Challenge) -> Hello:
        return Hello(challenge.version(), "shared", "stub", NONCE, NONCE, exchanges=1)

    def _admit(self, connection: LinkConnection, challenge: Challenge, welcome: Welcome) -> Link:
        if self.refuse is not None:
            raise self.refuse
        self.admitted.append(welcome)
        link = Link(self.frames, own=False, limits=LIMITS)
        connection.attach(link, lambda _link, _reason: None, lambda: False)
        return link

    def say(self, data: bytes) -> None:
        self.connection.data_received(data)

    def error(self) -> BaseException | None:
        """Why it was not attached; the connection has ended."""
        assert self.wire.closed
        assert self.greeting.attached.done()
        return self.greeting.attached.exception()


async def test_a_challenge_is_answered_and_a_welcome_attaches() -> None:
    talk = Talk()
    talk.say(CHALLENGE)
    assert b'"hello"' in talk.wire.written
    assert not talk.greeting.attached.done()
    talk.say(WELCOME)
    await talk.greeting.attached
    assert [welcome.session for welcome in talk.admitted] == ["a" * 32]


@pytest.mark.parametrize("size", [1, 2, 7, 13, 100])
async def test_it_does_not_matter_how_the_bytes_are_cut(size: int) -> None:
    talk = Talk()
    said = CHALLENGE + WELCOME + encode(PING, payload=b"12345678") + encode(CONTROL, payload=b"{}")
    for at in range(0, len(said), size):
        talk.say(said[at : at + size])
    assert talk.frames.seen == [(PING, b"12345678"), (CONTROL, b"{}")]
    await talk.greeting.attached


async def test_what_comes_with_the_welcome_is_the_links() -> None:
    talk = Talk()
    talk.say(CHALLENGE + WELCOME + encode(PING, payload=b"12345678"))
    assert talk.frames.seen == [(PING, b"12345678")]
    await talk.greeting.attached


def _challenge(**changes: Any) -> bytes:
    fields: dict[str, Any] = {"nonce": NONCE, "versions": (1,), "epoch": 7, "server": "stub-1"} | changes
    return encode(CONTROL, payload=Challenge(**fields).encode())


REFUSED: dict[str, bytes] = {
    "a welcome without a challenge": WELCOME,
    "no version in common": _challenge(versions=(2, 3)),
    "no version at all": _challenge(versions=()),
    "a negative epoch": _challenge(epoch=-1),
    "a frame that is no control message": encode(DATA, 0, 1, b"x"),
    "a control message that is no JSON": encode(CONTROL, payload=b"hi"),
    "a frame that is too large": HEADER.pack(CONTROL, 0, 64 * 1024 + 1, 0),
    "two challenges": CHALLENGE + CHALLENGE,
    "a welcome without a session": CHALLENGE + encode(CONTROL, payload=b'{"kind": "welcome", "version": 1}'),
    "a welcome of no version": CHALLENGE + WELCOME.replace(b'"version": 1', b'"version": 0'),
    "no exchanges": CHALLENGE + encode(CONTROL, payload=Welcome(1, "a", NONCE, 65_536, 0).encode()),
    "no credit": CHALLENGE + encode(CONTROL, payload=Welcome(1, "a", NONCE, 0, 1).encode()),
}


@pytest.mark.parametrize("said", REFUSED.values(), ids=REFUSED)
async def test_what_is_no_greeting_ends_the_connection(said: bytes) -> None:
    talk = Talk()
    talk.say(said)
    assert isinstance(talk.error(), ProtocolError | AttachFailed)
    assert not talk.admitted


async def test_a_refusal_says_why() -> None:
    talk = Talk()
    talk.say(CHALLENGE + encode(CONTROL, payload=Refused("token", "make a new one", retry_after=3).encode()))
    error = talk.error()
    assert isinstance(error, Refused)
    assert (error.reason, str(error), error.retry_after) == ("token", "make a new one", 3)


@pytest.mark.parametrize("refuse", [AttachFailed("gone"), ProtocolError("no")], ids=str)
async def test_a_welcome_that_comes_too_late_is_let_go_without_a_crash(refuse: TunnelError) -> None:
    talk = Talk(own=True)
    talk.refuse = refuse
    talk.say(CHALLENGE)
    talk.say(encode(CONTROL, payload=Welcome(1).encode()) + encode(PING, payload=b"12345678"))
    assert talk.error() is refuse
    assert not talk.frames.seen


async def test_an_answer_that_cannot_be_given_ends_the_connection() -> None:
    def too_old(_challenge: Challenge) -> Hello:
        raise AttachFailed("the epoch is too old")

    talk = Talk(answer=too_old)
    talk.say(CHALLENGE)
    assert "too old" in str(talk.error())
    assert b"hello" not in talk.wire.written


async def test_nobody_waits_any_more() -> None:
    talk = Talk()
    talk.say(CHALLENGE)
    talk.greeting.attached.cancel()
    talk.say(WELCOME)
    assert talk.wire.closed
    assert not talk.admitted


@pytest.mark.parametrize("said", [b"", CHALLENGE, CHALLENGE + WELCOME[:20]])
async def test_a_connection_lost_before_the_welcome_is_told(said: bytes) -> None:
    talk = Talk()
    if said:
        talk.say(said)
    talk.connection.connection_lost(ConnectionResetError(104, "reset"))
    with pytest.raises(AttachFailed, match="ended before it was attached"):
        await talk.greeting.attached


async def test_random_bytes_are_no_greeting() -> None:
    for _ in range(200):
        talk = Talk()
        talk.say(os.urandom(200))
        talk.connection.connection_lost(None)
        assert talk.greeting.attached.exception() is not None
        assert not isinstance(talk.greeting.attached.exception(), ExchangeReset)
