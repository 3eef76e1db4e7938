"""One exchange at the holder: from the replica that asked to an agent's session here, and back.

Both directions are pumped by callbacks alone. What the one exchange takes without waiting is `consumed` of the other at
once; the rest is owed until it says that it is writable, so that no more is held than the credit of one direction. What
one end is RESET by goes to the other in the same words.
"""

from __future__ import annotations

from collections.abc import Callable

from stub.errors import StubError
from stub.peers.heads import NoCluster, agent_line, with_agent, without_cluster
from tunnel.block import encode_trailers
from tunnel.errors import ExchangeReset, HeadError, Hop, Reason
from tunnel.ports import AgentExchange, Exchange, Headers, RequestBlock, RequestSink, ResponseBlock, ResponseSink
from tunnel.silent import SILENT

Opener = Callable[[str, RequestBlock, ResponseSink], Exchange]
"""Opens an exchange of a cluster on this very replica's sessions, and never at a further one. Raises StubError where
nothing has left (Draining for a cluster that this replica does not hold any more), ExchangeReset, or HeadError.
"""


def relayed(asked: AgentExchange, head: RequestBlock, opener: Opener) -> RequestSink:
    """Opens what another replica asks for; gives the sink of its request."""
    try:
        cluster, bare = without_cluster(head)
        answers = _Answers(asked)
        serving = opener(cluster, bare, answers)
    except NoCluster as error:
        return _refuse(asked, Hop.STUB, Reason.INTERNAL, str(error))
    except StubError as error:
        return _refuse(asked, Hop.STUB, error.reason, error.message)
    except HeadError as error:
        return _refuse(asked, Hop.STUB, Reason.REFUSED_HEAD, str(error))
    except ExchangeReset as error:
        return _refuse(asked, error.hop, error.reason, error.message)
    answers.serve(serving)
    return answers.requests


def _refuse(asked: AgentExchange, hop: Hop, reason: Reason, message: str) -> RequestSink:
    asked.cancel(hop, reason, message)
    asked.released()
    return SILENT


class _Requests:
    """What comes from the replica that asked, for the agent."""

    __slots__ = ("_asked", "_back", "_owed", "_serving")

    def __init__(self, asked: AgentExchange, serving: Exchange, back: _Answers) -> None:
        self._asked = asked
        self._serving = serving
        self._back = back
        self._owed = 0

    def on_data(self, data: bytes) -> None:
        if self._serving.send_data(data):
            self._asked.consumed(len(data))
        else:
            self._owed += len(data)

    def settle(self) -> None:
        """The agent's exchange takes bytes again."""
        owed, self._owed = self._owed, 0
        if owed:
            self._asked.consumed(owed)

    def on_end(self, trailers: Headers) -> None:
        if self._back.ended:  # its rest would wait for credit of one that reads no more
            self._serving.cancel(Hop.STUB, Reason.STOPPED, "the answer ended before its request")
        else:
            self._serving.send_end(encode_trailers(trailers) if trailers else b"")

    def on_reset(self, error: ExchangeReset) -> None:
        self._serving.cancel(error.hop, error.reason, error.message)
        self._asked.released()

    def on_writable(self) -> None:
        self._back.settle()


class _Answers:
    """What comes from the agent, for the replica that asked."""

    __slots__ = ("_agent", "_asked", "_hijacked", "_owed", "_serving", "ended", "requests")

    requests: _Requests

    def __init__(self, asked: AgentExchange) -> None:
        self._asked = asked
        self._serving: Exchange | None = None
        self._agent = b""
        self._hijacked = False
        self._owed = 0
        self.ended = False
        """The answer is complete: what is left of its request goes nowhere."""

    def serve(self, serving: Exchange) -> None:
        """The exchange is open, whose answers come here."""
        self._serving = serving
        self._agent = agent_line(serving.agent)
        self.requests = _Requests(self._asked, serving, self)

    def on_response(self, head: ResponseBlock) -> None:
        self._hijacked, self.ended = head.upgrade, head.ended
        self._asked.send_response(with_agent(head, self._agent))

    def on_data(self, data: bytes) -> None:
        if self._asked.send_data(data):
            if self._serving is not None:
                self._serving.consumed(len(data))
        else:
            self._owed += len(data)

    def settle(self) -> None:
        """The replica that asked takes bytes again."""
        owed, self._owed = self._owed, 0
        if owed and self._serving is not None:
            self._serving.consumed(owed)

    def on_end(self, trailers: Headers) -> None:
        self.ended = not self._hijacked
        self._asked.send_end(encode_trailers(trailers) if trailers else b"")

    def on_reset(self, error: ExchangeReset) -> None:
        self._asked.cancel(error.hop, error.reason, error.message)
        self._asked.released()

    def on_writable(self) -> None:
        if self._serving is not None:
            self.requests.settle()
