"""A client for the issuer and the gateway that believes neither: answers are small, whole, in time, and from there.

No redirect is followed: a token must reach nobody whom its user has not named.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from cli.failures import Failed
from cli.login.address import on_this_machine, plain

TIMEOUT = 10.0
MOST = 1 << 20
PATIENCE = 1.0
"""Seconds after which people are told what is waited for."""
Document = dict[str, Any]


class Unreachable(Exception):
    """There was no proper answer; it may be worth trying later. The text says who, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`document` is empty where the answer was not a JSON object. `date` is the server's clock, if it told it."""

    status: int
    document: Document = field(repr=False)
    date: float | None = None

    @property
    def ok(self) -> bool:
        """200 or 201."""
        return self.status in (200, 201)


class Web:
    """An async context manager."""

    def __init__(self, tls: ssl.SSLContext, note: Callable[[str], None], timeout: float = TIMEOUT) -> None:
        self._tls = tls
        self._note = note
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "kulvert"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """:raises Unreachable: no proper answer came."""
        return await self._ask("GET", url, headers=headers)

    async def post_form(self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
        """:raises Unreachable: no proper answer came."""
        return await self._ask("POST", url, headers=headers, data=form)

    async def post_json(self, url: str, body: Document, headers: Mapping[str, str] | None = None) -> Answer:
        """:raises Unreachable: no proper answer came."""
        return await self._ask("POST", url, headers=headers, json=body)

    async def _ask(self, method: str, url: str, **more: Any) -> Answer:
        host = urlsplit(url).netloc
        loop = asyncio.get_running_loop()
        telling = loop.call_later(PATIENCE, self._note, f"waiting for {host}")
        assert self._session is not None
        try:
            more |= {"allow_redirects": False, "proxy": proxy_for(url)}
            async with self._session.request(method, url, **more) as response:
                return Answer(response.status, await _document(response), _date(response.headers.get("Date")))
        except TimeoutError:
            raise Unreachable(f"{host} did not answer within {self._timeout:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unreachable(_untrusted(host, error.certificate_error)) from None
        except (aiohttp.ClientError, ValueError, OSError) as error:
            raise Unreachable(f"{host} cannot be reached: {_reason(error)}") from None
        finally:
            telling.cancel()


async def _document(response: aiohttp.ClientResponse) -> Document:
    data = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        data += chunk
        if len(data) > MOST:
            raise Unreachable(f"{response.url.host} answered with more than {MOST} bytes")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def trust(ca: str) -> ssl.SSLContext:
    """The system's authorities, and those of a PEM bundle. :raises Failed: it is none."""
    context = ssl.create_default_context()
    if ca:
        try:
            context.load_verify_locations(cadata=ca)
        except (ssl.SSLError, ValueError):
            raise Failed(
                "--certificate-authority is no PEM bundle of certificates: name the CA's certificate"
            ) from None
    return context


def proxy_for(url: str) -> str | None:
    """The system's proxy; none for this machine. Its .netrc is left alone: we bring our own credentials."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if on_this_machine(host) or proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)


def _date(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None


def _untrusted(host: str, error: object) -> str:
    said = plain(getattr(error, "verify_message", "")) or "not trusted"
    return f"{host} shows a certificate that is not good ({said}): name its CA by --certificate-authority FILE"


def _reason(error: Exception) -> str:
    inner = getattr(error, "os_error", error)
    return plain(getattr(inner, "strerror", None) or str(inner)) or type(inner).__name__
