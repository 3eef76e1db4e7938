"""Settings of several servers that are one installation."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stub.leases.settings import identity_problem

SINGLE: Final = "single"
STANDBY: Final = "standby"
SHARDED: Final = "sharded"
MODES: Final = (SINGLE, STANDBY, SHARDED)
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """`replicas.…`: more than `single` needs a hub, which holds the Leases and what replicas share."""

    mode: str = SINGLE
    """single: this server alone. standby: one of several has all agents, by a Lease. sharded: each has some clusters'.
    """
    identity: str = ""
    """This replica's name among the others; without it the environment's POD_NAME, then the host's name."""
    namespace: str = ""
    """Of the hub, for Leases and shared records; without it the service account's own."""
    peers_listen: str = "127.0.0.1:8445"
    """Where other replicas come in."""
    peer_address: str = ""
    """HOST:PORT at which other replicas reach this one; without it the environment's POD_IP, or `peersListen`'s host,
    with its port."""
    agents_address: str = ""
    """https://HOST:PORT at which agents reach this very replica, where they can: they are sent there, instead of
    being passed on by whichever replica they have reached."""
    label_pod: bool = False
    """Put the label kulvert.dev/active on this replica's own pod while it has agents to take."""

    @property
    def several(self) -> bool:
        """Whether there may be other replicas."""
        return self.mode != SINGLE

    def own_identity(self) -> str:
        """Never empty."""
        return self.identity or os.environ.get("POD_NAME", "") or socket.gethostname()

    def own_namespace(self) -> str:
        """Empty where nobody says it."""
        if self.namespace:
            return self.namespace
        try:
            return _NAMESPACE_FILE.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def own_peer_address(self, port: int) -> str:
        """`port` is the one that is listened at."""
        if self.peer_address:
            return self.peer_address
        host = os.environ.get("POD_IP", "") or self.peers_listen.rpartition(":")[0].strip("[]")
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def problems(self) -> Iterator[str]:
        """What cannot be, as texts for the configuration's reader."""
        if self.mode not in MODES:
            yield f"replicas.mode {self.mode!r} is none of {', '.join(MODES)}"
        if self.agents_address and not self.agents_address.startswith("https://"):
            yield "replicas.agentsAddress must be https://HOST[:PORT]"
        if self.several and (problem := identity_problem(self.own_identity())) is not None:
            yield f"replicas.identity {self.own_identity()!r}: {problem}"
