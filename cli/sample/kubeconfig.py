"""A kubeconfig for the sample. The token is the agent's, so a person acts *as* somebody with it."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from cli.sample.document import Obj

NAME = "kulvert-sample"


def document(url: str, ca_pem: bytes, token: str, user: str | None, groups: Sequence[str]) -> Obj:
    """Without a user it is the agent itself, which may do next to nothing."""
    credentials: Obj = {"token": token}
    if user is not None:
        credentials |= {"as": user, "as-groups": list(groups)}
    authority = base64.b64encode(ca_pem).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": {"server": url, "certificate-authority-data": authority}}],
        "users": [{"name": NAME, "user": credentials}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
        "current-context": NAME,
    }


def write(path: Path, config: Obj) -> None:
    """It holds a token: never readable by others, not even for a moment."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        yaml.safe_dump(config, file)
