"""Which of a cluster's agents takes the next exchange: of two taken at random, the less busy one.

The least busy of all would be no better, and worse where several replicas or many requests of one moment choose by the
same numbers. Source: Mitzenmacher, "The power of two choices in randomized load balancing".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stub.errors import AgentSilent, Draining, NoAgent, SessionOverloaded, StubError
from stub.session import Session

Uniform = Callable[[], float]
"""Numbers of [0, 1)."""


def choose(cluster: str, sessions: Sequence[Session], uniform: Uniform) -> Session:
    """An agent for the next exchange. One whose API server is not ready is better than nobody: its answer says what is
    wrong. Raises StubError.
    """
    if len(sessions) > 1:
        one, other = two_of(sessions, uniform)
        if one.available and other.available and one.health.ready and other.health.ready:
            return other if other.load < one.load else one
    available = [session for session in sessions if session.available]
    if not available:
        raise unavailable(cluster, sessions)
    fit = [session for session in available if session.health.ready] or available
    if len(fit) == 1:
        return fit[0]
    one, other = two_of(fit, uniform)
    return other if other.load < one.load else one


def two_of(sessions: Sequence[Session], uniform: Uniform) -> tuple[Session, Session]:
    """Two different ones at random, of at least two."""
    count = len(sessions)
    first = int(count * uniform())
    second = int((count - 1) * uniform())
    return sessions[first], sessions[second + (second >= first)]


def unavailable(cluster: str, sessions: Sequence[Session]) -> StubError:
    """Why none of a cluster's sessions takes an exchange."""
    if not sessions:
        return NoAgent(cluster, f"no agent of cluster {cluster!r} is connected: see to its kulvert agent")
    if any(session.mux.full for session in sessions):
        return SessionOverloaded(cluster, f"the agents of cluster {cluster!r} have all they can take; try again")
    if any(session.mux.suspect for session in sessions):
        return AgentSilent(cluster, f"the agent of cluster {cluster!r} is connected, but does not answer")
    if any(session.leaving or session.mux.stale for session in sessions):
        return Draining(cluster, f"another replica takes the agents of cluster {cluster!r} over; try again")
    return NoAgent(cluster, f"the agent of cluster {cluster!r} is shutting down")
