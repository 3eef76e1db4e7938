"""An OIDC issuer's web server in a thread of its own, for servers that outlive the loop of one test."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.cluster_pki import Authority

WELL_KNOWN = "/.well-known/openid-configuration"


class IssuerThread:
    """Context-managed: discovery and one key set, over TLS by an authority of its own (`ca`, PEM)."""

    def __init__(self, directory: Path, *keys: Mapping[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        authority = Authority(directory, "issuer")
        pair = authority.server("issuer")
        self.ca = authority.pem
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.cert, pair.key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        self._documents = {
            WELL_KNOWN: {"issuer": self.url, "jwks_uri": f"{self.url}/keys"},
            "/keys": {"keys": list(keys)},
        }

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="OIDC issuer")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(5.0)
        self._server.server_close()

    def configuration(self, audience: str, mappings: Mapping[str, Any]) -> dict[str, Any]:
        """The AuthenticationConfiguration that trusts it."""
        issuer = {"url": self.url, "audiences": [audience], "certificateAuthority": self.ca.decode()}
        kind = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"}
        return {**kind, "jwt": [{"issuer": issuer, "claimMappings": dict(mappings)}]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                body = json.dumps(site._documents.get(self.path, {})).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing on the test's stderr."""

        return Handler
