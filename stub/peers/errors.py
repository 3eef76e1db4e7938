"""Why nothing was opened at another replica, and how the holder's own refusals travel as RESETs."""

from __future__ import annotations

from typing import Final

from stub.errors import AgentSilent, Draining, NoAgent, SessionOverloaded, StubError
from tunnel.errors import ExchangeReset, Hop, Reason


class PeerGone(StubError):
    """The replica is not (any more) among those that are alive, as far as is known here."""

    reason = Reason.DRAINING


class PeerUnready(StubError):
    """There is no link to that replica now: it is being dialled, it is shutting down, or it does not answer."""

    reason = Reason.DRAINING


_KINDS: Final[dict[Reason, type[StubError]]] = {
    kind.reason: kind for kind in (NoAgent, AgentSilent, SessionOverloaded, Draining)
}


class NotOpened(ExchangeReset):
    """The holder has opened nothing, for the reason of a StubError: nothing of the request has left the stub."""

    def as_stub_error(self, cluster: str) -> StubError:
        """What the holder's own users would have been told."""
        return _KINDS[self.reason](cluster, self.message)


def told(hop: Hop, reason: Reason, message: str) -> ExchangeReset:
    """What a holder's RESET says. It speaks for itself (as the stub), for its agents and their API servers."""
    return ExchangeReset(hop if hop in (Hop.AGENT, Hop.APISERVER) else Hop.STUB, reason, message)


def unanswered(error: ExchangeReset) -> ExchangeReset:
    """What a RESET means that came before any head: a stub's own never has the reasons of a StubError once an exchange
    is open, so these say that none was.
    """
    if error.hop is Hop.STUB and error.reason in _KINDS:
        return NotOpened(error.hop, error.reason, error.message)
    return error
