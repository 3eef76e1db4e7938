"""The API server of the cluster that the agent runs in, and the agent's own projected token, which rotates.

Source: kubernetes.io/docs/tasks/run-application/access-api-from-pod. The kubelet replaces the token's file
(by a symbolic link) at 80 % of its life, so a look at the file's state once a second is early enough, and
cheap.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.access import ApiServer, verifying_context
from agent.credentials import NoAccess, TokenFile, file_state

DIRECTORY = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class InCluster:
    """An `agent.access.Access` by the pod's own service account."""

    def __init__(self, env: Mapping[str, str], directory: Path = DIRECTORY) -> None:
        """Raises NoAccess where this is no pod, or its token or CA cannot be read."""
        host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise NoAccess("not in a cluster (KUBERNETES_SERVICE_HOST is not set): set kubeconfig")
        if not port.isdigit():
            raise NoAccess("KUBERNETES_SERVICE_PORT is not a number")
        self.server = ApiServer(host, int(port), host)
        self._token = TokenFile(directory / "token")
        self.authorization: Callable[[float], bytes | None] = self._token.authorization
        self._ca = directory / "ca.crt"
        self._ca_state: tuple[int, int, int] | None = None
        self._context = self.context()

    def __repr__(self) -> str:
        return f"InCluster({self.server.host}:{self.server.port})"

    def context(self) -> ssl.SSLContext:
        """Made anew when the CA's file has changed. A new file that is no CA changes nothing: the old one
        still verifies.
        """
        try:
            state = file_state(self._ca)
            if state != self._ca_state:
                self._context = verifying_context(self._ca.read_text())
                self._ca_state = state
        except (OSError, ValueError) as error:
            if self._ca_state is None:
                raise NoAccess(f"cannot use the cluster's CA, {self._ca}: {_short(error)}") from error
        return self._context


def _short(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
