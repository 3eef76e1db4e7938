"""What an exchange offers to its owner and asks of it: the seam between HTTP/1.1 at either end and the frames between.

Calls go inwards (`send_*`, `consumed`, `cancel`); bytes, heads and errors come back through a sink, synchronously, from
within the input of the link, and `on_writable` from within its output. A sink never raises. After the end of both ways
there is at most an `on_reset` (what it sent did not all arrive); after `on_reset` or its own `cancel`, nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.known import KnownLines

Headers = list[tuple[bytes, bytes]]
"""(lower-case name, value) pairs in their order, as they stand on the link."""


@dataclass(slots=True)
class RequestBlock:
    """A request's head as it goes over the link (docs/protocol.md, 4). `target` is origin-form, the client's bytes."""

    method: bytes
    target: bytes
    headers: Headers = field(repr=False)
    ended: bool = True
    """No body follows."""
    long: bool = False
    """A watch, followed logs or a large body: an own link is asked for."""
    upgrade: bool = False
    """`upgrade` is in headers (spdy/3.1 or websocket), and there is no body."""
    pass_through: bool = False
    """`authorization` is in headers, in the place of an impersonation: the cluster decides by it (section 4)."""
    known: KnownLines | None = field(default=None, compare=False, repr=False)
    """At the agent: all headers behind the first one, an audit-id, where they are remembered."""
    repeatable: bool = False
    """At the stub: whoever asks takes it to another agent when this one falls silent before it answers."""


@dataclass(slots=True)
class ResponseBlock:
    """A response's head as it comes over the link. The framing headers are gone, but for a checked content-length."""

    status: int
    headers: Headers
    interim: bool = False
    """A 1xx other than 101: another head follows."""
    upgrade: bool = False
    """A 101 that the agent has checked: DATA is opaque from here on, both ways."""
    ended: bool = False
    """No body follows."""


class Exchange(Protocol):
    """One end's handle on an exchange. `agent` is the name of who serves it, empty where no agent does."""

    agent: str

    def send_data(self, data: bytes) -> bool:
        """Queue body (or, after a 101, opaque) bytes. False: stop reading your socket until `on_writable`."""

    def send_end(self, trailers: bytes = b"") -> None:
        """This direction is complete (after a hijack: its socket has ended)."""

    def consumed(self, count: int) -> None:
        """`count` of the bytes given by `on_data` have left this process: grants credit. Without it the peer stops."""

    def cancel(self, hop: Hop, reason: Reason, message: str) -> None:
        """RESET: both directions end now, the peer is told; the sink hears nothing more. Harmless when closed."""


class ResponseSink(Protocol):
    """What the gateway gives when it opens an exchange."""

    def on_response(self, head: ResponseBlock) -> None:
        """A head: any number of interim ones, then one that is final."""

    def on_data(self, data: bytes) -> None:
        """Body or opaque bytes; owe `consumed` for them."""

    def on_end(self, trailers: Headers) -> None:
        """The response is complete (not called when its head said `ended`). After a hijack: upstream has ended."""

    def on_reset(self, error: ExchangeReset) -> None:
        """There will be no (rest of the) answer."""

    def on_writable(self) -> None:
        """`send_data` takes bytes again."""


class RequestSink(Protocol):
    """What the agent's relay gives for each request that arrives. The response goes back by the request's exchange."""

    def on_data(self, data: bytes) -> None:
        """Body or opaque bytes; owe `consumed` for them."""

    def on_end(self, trailers: Headers) -> None:
        """The request is complete (not called when its head said `ended`). After a hijack: the client has ended."""

    def on_reset(self, error: ExchangeReset) -> None:
        """Stop. Close the upstream, then call the exchange's `released()`."""

    def on_writable(self) -> None:
        """`send_data` takes bytes again."""


class AgentExchange(Exchange, Protocol):
    """The agent's end, which answers."""

    def send_response(self, head: ResponseBlock) -> None:
        """Send a head. `ended` closes this direction."""

    def released(self) -> None:
        """The upstream connection of a RESET exchange is closed: its acknowledgement may go out."""
