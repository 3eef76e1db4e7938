"""A client by a kubeconfig, with nothing of Kulvert's in it: what it can reach, kubectl can."""

from __future__ import annotations

import base64
import http.client
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import yaml


class KubeClient:
    """GETs paths of the current context's cluster."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        self._server = urlsplit(config["clusters"][0]["cluster"]["server"])
        ca = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=ca)
        self._user = config["users"][0]["user"]
        if "token" not in self._user:
            self._load_pair(kubeconfig.parent)

    def _load_pair(self, directory: Path) -> None:
        pair = directory / "pair.pem"
        parts = ("client-certificate-data", "client-key-data")
        pair.write_bytes(b"".join(base64.b64decode(self._user[part]) for part in parts))
        self._context.load_cert_chain(pair)
        pair.unlink()

    def get(self, path: str) -> tuple[int, str]:
        """Status and text."""
        host, port = self._server.hostname or "", self._server.port
        connection = http.client.HTTPSConnection(host, port, context=self._context, timeout=10)
        headers = {"Authorization": f"Bearer {self._user['token']}"} if "token" in self._user else {}
        try:
            connection.request("GET", self._server.path + path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()
