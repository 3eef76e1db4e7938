"""The local end of a sign-in in the browser: a listener on this machine for one answer (RFC 8252, 7.3).

It answers one path, reflects nothing, and takes one answer. What does not know the attempt's state is turned away and
waited past: any page that the browser shows could send it, and must not be able to end a sign-in either.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from aiohttp import web

from cli.failures import Failed
from cli.login.attempt import Foreign

PATH = "/callback"
_TRIES = 20
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Kulvert</title>
<body style="font:16px/1.5 system-ui,sans-serif;margin:20vh auto;max-width:30em;text-align:center">
<h1 style="font-size:1.2em">{title}</h1><p>{text}</p></body></html>
"""
_DONE = _PAGE.format(title="Back to the terminal", text="Kulvert has your answer. This page can be closed.")
_NOT_OURS = _PAGE.format(
    title="Not the answer that Kulvert waits for", text="Go on with the page that <code>kulvert login</code> opened."
)
_OVER = _PAGE.format(title="This sign-in is over", text="Run <code>kulvert login</code> for another.")


class Loopback:
    """An async context. `judge` finds the code in a query: see `Attempt.code`."""

    def __init__(self, judge: Callable[[str], str], *, host: str, port: int = 0) -> None:
        self._judge = judge
        self._host = host
        self._port = port
        self._found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._runner: web.ServerRunner | None = None

    @property
    def redirect(self) -> str:
        """Where the issuer is to send the browser."""
        return f"http://{self._host}:{self._port}{PATH}"

    async def __aenter__(self) -> Self:
        sockets = _sockets(self._port)
        self._port = sockets[0].getsockname()[1]
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=1.0)
        await self._runner.setup()
        for one in sockets:
            await web.SockSite(self._runner, one).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._found.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def code(self, timeout: float) -> str:
        """:raises Failed: nobody signed in within so many seconds, or the issuer says no."""
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._found)
        except TimeoutError:
            raise Failed(
                f"nobody signed in within {timeout:.0f} s: `kulvert login` tries again, `kulvert login --device` "
                "does without a browser on this machine"
            ) from None

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.rel_url.raw_path != PATH or request.host not in self._hosts():
            return _page(404, _NOT_OURS)
        if request.method != "GET":
            return _page(405, _NOT_OURS)
        if self._found.done():
            return _page(410, _OVER)
        try:
            self._found.set_result(self._judge(request.rel_url.raw_query_string))
        except Foreign:
            return _page(400, _NOT_OURS)
        except Failed as error:
            self._found.set_exception(error)
        return _page(200, _DONE)

    def _hosts(self) -> tuple[str, ...]:
        return tuple(f"{host}:{self._port}" for host in ("localhost", "127.0.0.1", "[::1]"))


def _page(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/html", headers=_HEADERS)


def _sockets(port: int) -> list[socket.socket]:
    """The port on both loopback addresses: a browser may try either for `localhost`, and nobody else may have one.

    :raises Failed: it is taken.
    """
    for _ in range(_TRIES):
        with suppress(OSError):
            return _pair(port)
        if port:
            break
    raise Failed(f"port {port} of this machine is taken: choose another --listen-port" if port else "no port is free")


def _pair(port: int) -> list[socket.socket]:
    first = _bound(socket.AF_INET, "127.0.0.1", port)
    try:
        second = _bound(socket.AF_INET6, "::1", first.getsockname()[1]) if _has_ipv6() else None
    except OSError:
        first.close()
        raise
    return [first, second] if second else [first]


def _has_ipv6() -> bool:
    try:
        _bound(socket.AF_INET6, "::1", 0).close()
    except OSError:
        return False
    return True


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    made = socket.socket(family)
    try:
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made
