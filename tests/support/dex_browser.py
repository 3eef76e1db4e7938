"""As much of a browser as dex's pages need: it follows redirects within dex, and fills in the one form of a page."""

from __future__ import annotations

import html
import re
from urllib.parse import urljoin

import aiohttp

_ACTION = re.compile(r'<form[^>]*\baction="([^"]*)"')
_PREFILLED = re.compile(r'<input[^>]*\bname="([^"]*)"[^>]*\bvalue="([^"]*)"')
_MOST_REDIRECTS = 10


class Elsewhere(Exception):
    """A redirect leads out of dex: back to whoever wants somebody to log in."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


class Browser:
    """One window, with the session's cookies. `page` is what it shows."""

    def __init__(self, session: aiohttp.ClientSession, home: str) -> None:
        self._session = session
        self._home = home
        self._url = home
        self.page = ""

    async def open(self, url: str) -> None:
        """Shows a page. :raises Elsewhere: it leads away."""
        await self._go("GET", url, None)

    async def submit(self, **fields: str) -> None:
        """Sends the page's form, what is filled in already included. :raises Elsewhere: that leads away."""
        form = _ACTION.search(self.page)
        assert form, f"no form at {self._url}:\n{self.page}"
        filled = {name: html.unescape(value) for name, value in _PREFILLED.findall(self.page)}
        await self._go("POST", urljoin(self._url, html.unescape(form[1])), filled | fields)

    async def _go(self, method: str, url: str, data: dict[str, str] | None) -> None:
        for _ in range(_MOST_REDIRECTS):
            if not url.startswith(self._home):
                raise Elsewhere(url)
            async with self._session.request(method, url, data=data, allow_redirects=False) as answer:
                self._url, self.page = url, await answer.text()
                if answer.status not in (301, 302, 303, 307):
                    assert answer.ok, f"{answer.status} at {url}:\n{self.page}"
                    return
                url, method, data = urljoin(url, answer.headers["Location"]), "GET", None
        raise AssertionError(f"more than {_MOST_REDIRECTS} redirects, last to {url}")
