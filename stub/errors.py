"""Why the stub opens no exchange. In each case nothing has left it, so another agent, or a later attempt, is safe."""

from __future__ import annotations

from tunnel.errors import Hop, Reason, TunnelError


class StubError(TunnelError):
    """Base. `message` is fit for users; `reason` is what a RESET would have said."""

    reason = Reason.INTERNAL
    hop = Hop.STUB
    left = False
    """Whether anything of the request has left the stub."""

    def __init__(self, cluster: str, message: str) -> None:
        super().__init__(message)
        self.cluster = cluster
        self.message = message


class NoAgent(StubError):
    """No agent of this cluster is attached, or the last one is shutting down."""

    reason = Reason.UNREACHABLE


class AgentSilent(StubError):
    """The agents of this cluster are connected, and none has acknowledged its last request."""

    reason = Reason.UNACKNOWLEDGED


class SessionOverloaded(StubError):
    """Every agent of this cluster has as many exchanges as it takes."""

    reason = Reason.OVERLOADED


class Draining(StubError):
    """This replica hands its sessions over."""

    reason = Reason.DRAINING


class Unheld(StubError):
    """No replica has the cluster's agents at present, or this one has them no more: a few seconds will change it."""

    reason = Reason.DRAINING
