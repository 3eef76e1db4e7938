"""One request's answer, on its way to the client: its framing is made anew, and checked.

A cluster can neither leave bytes on a user's connection nor end an answer in a way that passes for whole when it is
not. Behind a checked 101 the bytes are opaque: they are copied, and shown to who looks on (`gateway.hijack`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from gateway.delimiting import Delimiting, delimit
from gateway.downstreamhead import render_answer, trailers_of
from gateway.hijack import Hijack, hijack_of
from gateway.recording.streamtap import StreamTap, TapFailed
from tunnel.body import LAST_CHUNK, chunk_head, encode_last_chunk
from tunnel.errors import HeadError, Reason
from tunnel.events import Events
from tunnel.ports import Exchange, Headers, RequestBlock, ResponseBlock

if TYPE_CHECKING:
    from gateway.ports import Client, Owner
    from gateway.route import Route
    from gateway.withdrawal import Withdrawal
    from tunnel.head import RequestHead
    from tunnel.requestinfo import RequestInfo


class Answering(ABC):
    """What an exchange tells its sink (tunnel.ports.ResponseSink), but for its failure. A passage is one."""

    __slots__ = (
        "_left", "_mode", "_over", "agent", "answered", "audit_id", "block", "client", "code", "events", "exchange",
        "head", "hijack", "hijacked", "info", "keep", "kept", "leaving", "owner", "proxied", "request_ended",
        "response_bytes", "route", "tap",
    )  # fmt: skip

    def __init__(self, client: Client, owner: Owner, head: RequestHead) -> None:
        self.client = client
        self.owner = owner
        self.head = head
        # An upgrade has no body, but its direction stays open for what follows a 101.
        self.request_ended = head.framing.empty and head.upgrade is None
        self.keep = head.keep_alive and head.version != b"1.0" and head.upgrade is None
        self.exchange: Exchange | None = None
        self.answered = self.hijacked = self._over = False
        self.code = self.response_bytes = self._left = 0
        self._mode = Delimiting.NONE
        self.route: Route | None = None
        self.info: RequestInfo | None = None
        self.block: RequestBlock | None = None
        self.audit_id = self.agent = ""
        self.proxied = b""
        self.kept: bytearray | None = None
        """The body so far, where another replica may still give the request back, having sent nothing of it."""
        self.tap: StreamTap | None = None
        """Who looks on, should this become a hijacked stream."""
        self.hijack: Hijack | None = None
        """Since a 101, if anybody does."""
        self.leaving: Withdrawal | None = None
        """This stream is being ended: its client gets the rest of a message, and the cluster nothing more."""
        self.events: Events | None = None
        """Of a watch, once it is answered."""

    # --- what a passage makes of it

    @abstractmethod
    def fail(self, reason: Reason, message: str) -> None:
        """Give the exchange up from our side, and answer accordingly."""

    @abstractmethod
    def leave(self) -> None:
        """The end of a stream that is withdrawn, whether its last message is whole or not."""

    @abstractmethod
    def _began(self) -> None:
        """The head of an answer to a long request is about to be written."""

    @abstractmethod
    def _complete(self) -> None:
        """All of the answer has been written."""

    # --- the exchange's calls

    def on_response(self, head: ResponseBlock) -> None:
        """See tunnel.ports.ResponseSink."""
        if self._over:
            return
        try:
            if head.interim:
                self._interim(head)
            elif head.upgrade:
                self._switch(head)
            else:
                self._final(head)
        except HeadError as error:
            self.fail(Reason.BAD_RESPONSE, f"the cluster's answer cannot be passed on: {error}")

    def on_data(self, data: bytes) -> None:
        """See tunnel.ports.ResponseSink."""
        if self._over:
            return
        mode, size, client = self._mode, len(data), self.client
        self.response_bytes += size
        if mode is Delimiting.LENGTH:
            self._left -= size
            if self._left < 0:
                self.fail(Reason.BAD_RESPONSE, "the answer is longer than its content-length")
                return
            client.write(data)
        elif mode is Delimiting.CHUNKED:
            if self.events is not None:
                self.events.take(data)
            client.write(chunk_head(size))
            client.write(data)
            client.write(b"\r\n")
        elif mode is Delimiting.NONE:
            self.fail(Reason.BAD_RESPONSE, "a body where there can be none")
            return
        elif self.hijack is None:
            client.write(data)
        else:
            self._pass_on(self.hijack, data)
            return
        client.owe(size)

    def on_end(self, trailers: Headers) -> None:
        """See tunnel.ports.ResponseSink."""
        if self._over:
            return
        if self._left or not self.answered:
            self.fail(Reason.BAD_RESPONSE, "the answer is shorter than its content-length, or has no head")
            return
        if self._mode is Delimiting.CHUNKED:
            self.client.write(_last_chunk(trailers))
        elif self._mode is Delimiting.OPAQUE:
            self.keep = False
            if self.exchange is not None and not self.request_ended:
                self.request_ended = True
                self.exchange.send_end()
        self._complete()

    def on_writable(self) -> None:
        """See tunnel.ports.ResponseSink."""
        if not self._over:
            self.client.writable()

    # --- heads

    def _interim(self, head: ResponseBlock) -> None:
        """Our own 100 Continue has been sent when the exchange was opened; 1.0 clients know no 1xx."""
        if head.status != 100 and self.head.version != b"1.0" and not self.answered and self.route is not None:
            self.client.write(render_answer(head, self.route, self.proxied, [], self.owner.date))

    def _switch(self, head: ResponseBlock) -> None:
        upgrade = self.head.upgrade
        theirs = [value for name, value in head.headers if name == b"upgrade"]
        if upgrade is None or self.answered or [value.lower() for value in theirs] != [upgrade]:
            raise HeadError("a 101 that was not asked for", 502)
        assert self.route is not None
        if self.tap is not None:
            self.tap.begin(head)
        own = [(b"connection", b"Upgrade"), (b"upgrade", theirs[0])]
        data = render_answer(head, self.route, self.proxied, own, self.owner.date)
        self.code, self.answered, self.hijacked = 101, True, True
        self.request_ended = False
        self._mode = Delimiting.OPAQUE
        self.hijack = hijack_of(self.tap, upgrade, self.info, head.headers)
        if self.exchange is not None:  # where another replica has the agents, its answer says which one it was
            self.agent = self.exchange.agent or self.agent
        self._began()
        self.client.write(data)
        self.client.hijack()

    def _final(self, head: ResponseBlock) -> None:
        if self.answered:
            raise HeadError("two answers to one request", 502)
        assert self.route is not None
        self.keep = self.keep and self.request_ended
        self._mode, self._left, framing = delimit(head, self.head.method, self.head.version)
        if self._mode is Delimiting.CLOSE:
            self.keep = False
        own = [*framing, *self._own()]
        data = render_answer(head, self.route, self.proxied, own, self.owner.date)
        self.code, self.answered, self.kept = head.status, True, None
        if self._mode is Delimiting.CHUNKED and self.info is not None and self.info.verb == "watch":
            self.events = Events(head.headers)
        if self.block is not None and self.block.long and not head.ended:
            self._began()
        self.client.write(data)
        if head.ended:
            self._complete()

    def _own(self) -> Headers:
        own = [(b"audit-id", self.audit_id.encode("ascii"))] if self.audit_id else []
        if not self.keep or self.client.leaving:
            self.keep = False
            own.append((b"connection", b"close"))
        return own

    # --- behind a 101

    def shown(self, data: bytes) -> bool:
        """The client's bytes, shown to the tap before they go on. False: they must not, and the stream was cut."""
        if self.tap is not None:
            try:
                self.tap.from_client(data)
            except TapFailed as failed:
                self.fail(Reason.CANCELLED, str(failed))
                return False
        return True

    def _pass_on(self, hijack: Hijack, data: bytes) -> None:
        try:
            passed = hijack.to_client(data) if self.leaving is None else hijack.rest(data)
        except TapFailed as failed:
            self.fail(Reason.CANCELLED, str(failed))
            return
        if passed:
            self.client.write(passed)
            self.client.owe(len(passed))
        if self.leaving is not None:
            self.response_bytes -= len(data) - len(passed)
            if not hijack.midway:
                self.leave()


def _last_chunk(trailers: Headers) -> bytes:
    if not trailers:
        return LAST_CHUNK
    try:
        return encode_last_chunk(trailers_of(trailers))
    except HeadError:
        return LAST_CHUNK
