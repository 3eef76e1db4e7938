"""A hub's API server over plain HTTP, in threads of the test: it keeps objects as they are put, and may fall silent."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, NoReturn
from urllib.parse import urlsplit

Doc = dict[str, Any]
COLLECTIONS = ("secrets", "leases")


class Hub(ThreadingHTTPServer):
    """It answers until it is asked what is `silent`, and then nobody any more; or, `partly`, all but that.

    `asked` is what it was asked, `objects` are what it has, by their paths. A watch shows nothing.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, silent: str, *, partly: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.silent = silent
        self.partly = partly
        self.asked: list[str] = []
        self.objects: dict[str, Doc] = {}
        self.over = threading.Event()
        self.turn = threading.Lock()
        self.versions = count(1)

    def start(self) -> None:
        """Answer, in a thread, until `stop`."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Whoever was never answered need not wait any longer."""
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Who asks may have gone meanwhile."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it came

    def until_asked(self, what: str, seconds: float = 30) -> None:
        """Wait for a question that begins so."""
        self.until(lambda: any(one.startswith(what) for one in self.asked), seconds)

    def until(self, so: Callable[[], bool], seconds: float = 30) -> None:
        """Wait for what is to become true."""
        deadline = time.monotonic() + seconds
        while not so():
            assert time.monotonic() < deadline, self.asked
            time.sleep(0.02)

    def holder(self, lease: str) -> str | None:
        """Who a Lease of the namespace names; None: there is no such Lease."""
        found = self.objects.get(f"/apis/coordination.k8s.io/v1/namespaces/kulvert/leases/{lease}")
        return None if found is None else str(found["spec"].get("holderIdentity", ""))


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, query = self._asked()
        if "watch=" in query:
            self._never()
        if path.rpartition("/")[2] in COLLECTIONS:
            items = [one for at, one in self.server.objects.items() if at.startswith(f"{path}/")]
            return self._answer(200, {"metadata": {"resourceVersion": str(next(self.server.versions))}, "items": items})
        found = self.server.objects.get(path)
        return self._answer(200, found) if found is not None else self._refuse(404, "NotFound")

    def do_POST(self) -> None:
        path, _ = self._asked()
        made = self._body()
        path = f"{path}/{made['metadata']['name']}"
        with self.server.turn:
            if path in self.server.objects:
                return self._refuse(409, "AlreadyExists")
            return self._put(201, path, made, f"uid-{next(self.server.versions)}")

    def do_PUT(self) -> None:
        path, _ = self._asked()
        made = self._body()
        with self.server.turn:
            if not self._is_what_is_there(path, made["metadata"]):
                return self._refuse(409, "Conflict")
            return self._put(200, path, made, self.server.objects[path]["metadata"]["uid"])

    def do_DELETE(self) -> None:
        path, _ = self._asked()
        with self.server.turn:
            if not self._is_what_is_there(path, self._body()["preconditions"]):
                return self._refuse(409, "Conflict")
            return self._answer(200, self.server.objects.pop(path))

    def _is_what_is_there(self, path: str, said: Doc) -> bool:
        there = self.server.objects.get(path, {}).get("metadata", {})
        return bool(there) and all(there[key] == said[key] for key in ("uid", "resourceVersion") if key in said)

    def _put(self, status: int, path: str, made: Doc, uid: str) -> None:
        made["metadata"] |= {"uid": uid, "resourceVersion": str(next(self.server.versions))}
        self.server.objects[path] = made
        self._answer(status, made)

    # ---

    def _asked(self) -> tuple[str, str]:
        """The path and the query, unless nobody is to be answered."""
        hub, said = self.server, f"{self.command} {self.path}"
        hub.asked.append(said)
        if any(one.startswith(hub.silent) for one in ([said] if hub.partly else hub.asked)):
            self._never()
        asked = urlsplit(self.path)
        return asked.path, asked.query

    def _never(self) -> NoReturn:
        self.server.over.wait()
        raise ConnectionAbortedError

    def _body(self) -> Doc:
        body: Doc = json.loads(self.rfile.read(int(self.headers["content-length"])))
        return body

    def _refuse(self, status: int, reason: str) -> None:
        self._answer(status, {"kind": "Status", "code": status, "reason": reason})

    def _answer(self, status: int, body: Doc) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...
