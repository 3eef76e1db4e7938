"""Who looks on at a hijacked stream sees each piece before it goes on; where nobody does, nothing is paid for it."""

from __future__ import annotations

import pytest

from gateway.failures import Answer
from gateway.hijack import Hijack, hijack_of
from gateway.recording.streamtap import TapFailed
from tests.gateway.execstreams import message
from tunnel.ports import Headers, ResponseBlock
from tunnel.requestinfo import request_info
from tunnel.websocket import CLOSE

EXEC = request_info("GET", b"/api/v1/namespaces/n/pods/p/exec", b"command=sh")
CHOSEN: Headers = [(b"sec-websocket-protocol", b"v5.channel.k8s.io")]
GONE = Answer(403, [], b"{}", "gone")


class Seen:
    """A tap that keeps what it is shown, and fails when it is told to."""

    name = "seen"

    def __init__(self) -> None:
        self.shown = b""
        self.broken = False

    def begin(self, head: ResponseBlock) -> None: ...

    def from_cluster(self, data: bytes) -> None:
        if self.broken:
            raise TapFailed("full")
        self.shown += data

    def from_client(self, data: bytes) -> None: ...

    def end(self) -> None: ...


def websocket(tap: Seen | None = None) -> Hijack:
    made = hijack_of(tap, b"websocket", EXEC, CHOSEN)
    assert made is not None
    return made


@pytest.mark.parametrize("headers", [[], [(b"sec-websocket-extensions", b"permessage-deflate")]])
def test_a_stream_at_which_nobody_looks_has_nothing(headers: Headers) -> None:
    assert hijack_of(None, b"spdy/3.1", EXEC, headers) is None
    assert hijack_of(None, b"websocket", None, CHOSEN) is None
    assert (hijack_of(None, b"websocket", EXEC, headers) is None) is bool(headers)


def test_the_tap_sees_what_goes_on_and_may_forbid_it() -> None:
    tap = Seen()
    hijack = hijack_of(tap, b"spdy/3.1", EXEC, [])
    assert hijack is not None
    assert hijack.to_client(b"one") == b"one"
    assert not hijack.midway
    assert hijack.words(GONE) == b""
    tap.broken = True
    with pytest.raises(TapFailed):
        hijack.to_client(b"two")
    with pytest.raises(TapFailed):
        hijack.rest(b"two")
    assert tap.shown == b"one"


def test_the_rest_ends_with_the_message_that_had_begun() -> None:
    tap = Seen()
    whole = message(1, b"hello")
    hijack = websocket(tap)
    assert hijack.to_client(whole[:3]) == whole[:3]
    assert hijack.midway
    assert hijack.words(GONE) == b""
    assert hijack.rest(whole[3:] + whole) == whole[3:]
    assert not hijack.midway
    assert tap.shown == whole + whole


def test_between_messages_there_is_a_place_for_a_farewell() -> None:
    hijack = websocket()
    hijack.to_client(message(1, b"hello"))
    assert bytes((0x80 | CLOSE,)) in hijack.words(GONE)
