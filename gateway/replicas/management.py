"""Kulvert's own API where there are several replicas: the leader answers, since it alone writes what all share.

Health, metrics, version and what is public are each replica's own. The rest goes to the leader as an exchange over a
peer link, under a name that no cluster can have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from gateway import failures, status
from gateway.failures import Refused
from gateway.handover import Caller, Handover
from gateway.replicas import callers
from gateway.replicas.routing import Peers
from stub.errors import Draining, StubError
from stub.ownership import Ownership
from tunnel.errors import ExchangeReset, HeadError
from tunnel.head import Framing, FramingKind, RequestHead, end_to_end
from tunnel.headframing import CHUNKED, NONE
from tunnel.ports import Exchange, Headers, RequestBlock, ResponseBlock, ResponseSink

NAME: Final = "_management"
HOST: Final = b"kulvert"
"""Whatever the client called this server: the application makes nothing of it."""
NOTES: Final = b"kulvert-notes"
OWN: Final = frozenset((
    b"/healthz", b"/livez", b"/readyz", b"/metrics", b"/version",
    b"/openid/v1/jwks", b"/.well-known/openid-configuration", b"/.well-known/kulvert-configuration",
))  # fmt: skip
"""What each replica answers by itself. Everything else is the leader's, however its path is spelt."""
_NOT_SENT: Final = frozenset((b"authorization", b"cookie", b"expect", b"host", b"content-length", b"upgrade"))


class LeadersManagement:
    """See the module. `here` answers what is this replica's own."""

    def __init__(self, here: Handover, ownership: Ownership, peers: Peers) -> None:
        self._here = here
        self._ownership = ownership
        self._peers = peers

    def open(self, head: RequestHead, caller: Caller, sink: ResponseSink) -> Exchange:
        """See `gateway.handover.ManagementPort`."""
        if head.path in OWN or self._ownership.leading or caller.identity is None:
            return self._here.open(head, caller, sink)
        leader = self._ownership.leader()
        if not leader:
            raise Refused(status.OVERLOADED, "no replica leads at present", retry_after=1)
        try:
            return self._peers.open(leader, NAME, block_of(head, caller), _Noting(sink, _heard(caller)))
        except StubError as error:
            raise failures.of_stub(error) from None

    def open_here(self, block: RequestBlock, sink: ResponseSink) -> Exchange:
        """What another replica asks for. Raises StubError, HeadError."""
        if not self._ownership.leading:
            raise Draining("", "this replica does not lead any more; try again")
        head, caller = head_of(block)
        return self._here.open(head, caller, _Noting(sink, _told(caller)))


class _Noting:
    """A sink before another one: what the application notes for the audit record goes back with the answer's head."""

    def __init__(self, sink: ResponseSink, change: Callable[[Headers], Headers]) -> None:
        self._sink = sink
        self._change = change
        self.on_data, self.on_end, self.on_writable = sink.on_data, sink.on_end, sink.on_writable

    def on_response(self, head: ResponseBlock) -> None:
        """See tunnel.ports.ResponseSink."""
        self._sink.on_response(replace(head, headers=self._change(head.headers)))

    def on_reset(self, error: ExchangeReset) -> None:
        """See tunnel.ports.ResponseSink."""
        self._sink.on_reset(error)


def _told(caller: Caller) -> Callable[[Headers], Headers]:
    return lambda headers: [*headers, (NOTES, callers.encode_notes(caller.notes))] if caller.notes else headers


def _heard(caller: Caller) -> Callable[[Headers], Headers]:
    def heard(headers: Headers) -> Headers:
        for name, value in headers:
            if name == NOTES:
                caller.notes.update(callers.decode_notes(value))
        return [pair for pair in headers if pair[0] != NOTES]

    return heard


def block_of(head: RequestHead, caller: Caller) -> RequestBlock:
    """A request as it goes to another replica. Credentials stay here."""
    headers: Headers = [(callers.HEADER, callers.encode(caller))]
    headers += [pair for pair in end_to_end(head.headers) if pair[0] not in _NOT_SENT and pair[0] != callers.HEADER]
    if head.framing.kind is FramingKind.LENGTH:
        headers.append((b"content-length", b"%d" % head.framing.length))
    return RequestBlock(head.method, head.target, headers, head.framing.empty, False, False, False)


def head_of(block: RequestBlock) -> tuple[RequestHead, Caller]:
    """The request, and who asks. :raises HeadError: it says so not at all, or twice."""
    said = [value for name, value in block.headers if name == callers.HEADER]
    if len(said) != 1:
        raise HeadError("another replica does not say who asks", 502)
    headers = [(b"host", HOST), *(pair for pair in block.headers if pair[0] not in (callers.HEADER, b"host"))]
    length = next((value for name, value in headers if name == b"content-length"), None)
    framing = NONE if block.ended else CHUNKED if length is None else Framing(FramingKind.LENGTH, int(length))
    path, _, query = block.target.partition(b"?")
    head = RequestHead(
        headers=headers,
        version=b"1.1",
        keep_alive=False,
        framing=framing,
        upgrade=None,
        _index=dict(reversed(headers)),
        derived={},
        method=block.method,
        target=block.target,
        path=path,
        query=query,
        expect_continue=False,
        host=None,
    )
    return head, callers.decode(said[0])
