"""The port to whoever knows which agents may come in: join tokens and the pinned ids of clusters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class JoinKey:
    """What a join token is good for. `key` checks its proofs (`tunnel.proof.join_key`)."""

    key: bytes = field(repr=False)
    cluster: str
    expires: float
    """Seconds since the epoch."""


class AgentAuthority(Protocol):
    """Answered from memory: it is asked while an agent waits in the door."""

    def join_key(self, token_id: str) -> JoinKey | None:
        """The key of a join token, or None for one that is unknown or was taken back."""

    def admit(self, cluster: str, cluster_id: str) -> str:
        """Pin `cluster_id` to the cluster, or compare it with the pinned one. "" or why the agent is refused."""
