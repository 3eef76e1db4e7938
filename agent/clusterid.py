"""The cluster's unique id: the UID of its namespace kube-system, which no two clusters share and nobody can
choose.
"""

from __future__ import annotations

import re

import orjson

from agent.pool import UpstreamPool
from agent.question import Reply, ask
from tunnel.errors import ExchangeReset, Reason, TunnelError

TARGET = b"/api/v1/namespaces/kube-system"
_UID = re.compile(r"[0-9a-zA-Z-]{1,64}")
_REFUSED = {
    401: "the API server does not accept the agent's credential: is its service account or kubeconfig of this cluster?",
    403: "the agent may not read the namespace kube-system: its ClusterRole needs `get` on the resource `namespaces`, "
    "resourceName `kube-system` (the chart kulvert-agent makes it; rbac.create must not be false)",
    404: "the API server knows no namespace kube-system: is this a Kubernetes API server?",
}


class ClusterIdError(TunnelError):
    """The id could not be read; the text says what to do. `temporary`: asking again may help."""

    def __init__(self, message: str, temporary: bool) -> None:
        super().__init__(message)
        self.temporary = temporary


async def cluster_id(pool: UpstreamPool, timeout: float = 10.0) -> str:
    """Ask for the id. Raises ClusterIdError."""
    try:
        reply = await ask(pool, TARGET, timeout)
    except ExchangeReset as error:
        raise ClusterIdError(*_unreachable(pool, error)) from error
    return read_id(reply)


def read_id(reply: Reply) -> str:
    """The id in an answer. Raises ClusterIdError."""
    if reply.status != 200:
        known = _REFUSED.get(reply.status)
        raise ClusterIdError(known or f"the API server answered {reply.status}", known is None)
    try:
        uid = orjson.loads(reply.body)["metadata"]["uid"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        uid = None
    if not isinstance(uid, str) or not _UID.fullmatch(uid):
        raise ClusterIdError("the answer about the namespace kube-system has no uid", False)
    return uid


def _unreachable(pool: UpstreamPool, error: ExchangeReset) -> tuple[str, bool]:
    server = pool.access.server
    where = f"the API server at {server.host}:{server.port}"
    if error.reason is Reason.TLS:
        return f"{where}: {error.message}; check the CA and the server's name", False
    return f"{where}: {error.message}", True
