"""kubectl's exec credential plugins: what it says in KUBERNETES_EXEC_INFO, and what it wants on standard output."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cli.failures import Failed

VARIABLE = "KUBERNETES_EXEC_INFO"
GROUP = "client.authentication.k8s.io"
V1 = f"{GROUP}/v1"
VERSIONS = (V1, f"{GROUP}/v1beta1")


@dataclass(frozen=True, slots=True)
class ExecInfo:
    """`interactive` is None where nobody said. `server` and `ca` are the cluster's, with provideClusterInfo."""

    version: str = V1
    interactive: bool | None = None
    server: str = ""
    ca: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What kubectl is given: a token, or a certificate and its key (PEM); it asks anew at `until` (epoch seconds)."""

    until: float
    token: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)


def read_info(env: Mapping[str, str]) -> ExecInfo:
    """:raises Failed: it is malformed, or of a version that is not answered."""
    text = env.get(VARIABLE)
    if not text:
        return ExecInfo()
    try:
        document = json.loads(text)
        version, spec = document.get("apiVersion"), document.get("spec") or {}
        cluster = spec.get("cluster") or {}
        server, ca = cluster.get("server") or "", cluster.get("certificate-authority-data") or ""
        if not isinstance(server, str) or not isinstance(ca, str):
            raise TypeError
        ca = _pem(ca)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Failed(f"{VARIABLE} makes no sense: this command is for kubectl to run, or to run without it") from None
    if version not in VERSIONS:
        raise Failed(f"this kubectl asks for {str(version)[:80]!r}; kulvert answers {' and '.join(VERSIONS)}")
    return ExecInfo(version, spec.get("interactive") is True, server, ca)


def answer(info: ExecInfo, shown: Shown) -> str:
    """The ExecCredential, as JSON. Times are cut to whole seconds: never later than meant."""
    status: dict[str, Any] = {"expirationTimestamp": _timestamp(shown.until)}
    if shown.token:
        status["token"] = shown.token
    if shown.certificate:
        status |= {"clientCertificateData": shown.certificate, "clientKeyData": shown.key}
    document: dict[str, Any] = {"apiVersion": info.version, "kind": "ExecCredential"}
    return json.dumps(document | {"spec": {"interactive": info.interactive is True}, "status": status})


def _timestamp(until: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(math.floor(until)))


def _pem(encoded: str) -> str:
    from base64 import b64decode

    return b64decode(encoded, validate=True).decode("ascii")
