"""Fetching an issuer's keys, the one thing here that touches the network: first the discovery document (OpenID Connect
Discovery 1.0, section 4), then the key set that it names.

An issuer is trusted to name its keys, and with nothing else: its answers are bounded in size and time, come over TLS
alone, and redirect nowhere but to the same server.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import urljoin, urlsplit

import aiohttp

from auth.oidc.config import KeySource
from auth.oidc.jwks import BadKeySet, KeySet, parse_key_set
from auth.oidc.strictjson import BadJson, read_object

TIMEOUT: Final = 4.0
"""Seconds for all of it, which is less than a request waits."""
MAX_BYTES: Final = 256 * 1024
MAX_REDIRECTS: Final = 3

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?([0-9]{1,9})\"?(?:$|[\s,])", re.IGNORECASE)
_UNCACHED: Final = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,=])", re.IGNORECASE)


class FetchFailed(Exception):
    """No keys came of it; the text says why, for whoever runs the gateway."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Keys, and for how many seconds the issuer calls them fresh (None where it does not say)."""

    keys: KeySet
    max_age: float | None = None


class Fetcher(Protocol):
    """Gets the present keys of one issuer."""

    async def fetch(self) -> Fetched:
        """:raises FetchFailed: for whatever reason; nothing else."""
        ...


@dataclass(frozen=True, slots=True)
class HttpFetcher:
    """The real one. Each fetch has connections of its own: they are minutes apart."""

    source: KeySource
    timeout: float = TIMEOUT

    async def fetch(self) -> Fetched:
        """See `Fetcher`."""
        try:
            async with asyncio.timeout(self.timeout), self._session() as session:
                document, _ = await _get(session, self.source.discovery_url)
                data, cached = await _get(session, key_set_url(document, self.source))
                return Fetched(parse_key_set(data), max_age(cached))
        except TimeoutError:
            raise FetchFailed(f"no answer within {self.timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchFailed(str(error) or type(error).__name__) from None

    def _session(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cadata=self.source.authorities)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        connector = aiohttp.TCPConnector(ssl=context)
        return aiohttp.ClientSession(
            connector=connector, headers=headers, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )


def key_set_url(document: bytes, source: KeySource) -> str:
    """What a discovery document says about the keys. :raises BadKeySet: it is not this issuer's."""
    try:
        found = read_object(document)
    except BadJson as bad:
        raise BadKeySet(f"the discovery document {bad}") from None
    if found.get("issuer") != source.issuer:
        raise BadKeySet(f"the discovery document is not of the issuer {source.issuer}, to the letter")
    url = found.get("jwks_uri")
    if not isinstance(url, str) or not _safe(url):
        raise BadKeySet("the discovery document names no jwks_uri with https")
    return url


def max_age(cache_control: str) -> float | None:
    """Seconds that a Cache-Control header allows, None where it does not say (RFC 9111, section 5.2.2)."""
    if _UNCACHED.search(cache_control):
        return 0.0
    match = _MAX_AGE.search(cache_control)
    return float(match[1]) if match else None


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[bytes, str]:
    """The body, and its Cache-Control header."""
    for _ in range(MAX_REDIRECTS + 1):
        async with session.get(url, allow_redirects=False) as answer:
            if answer.status not in _REDIRECTS:
                return await _body(answer, url), answer.headers.get("Cache-Control", "")
            target = urljoin(url, answer.headers.get("Location", ""))
        if not _safe(target) or urlsplit(target).netloc.lower() != urlsplit(url).netloc.lower():
            raise FetchFailed(f"{url} redirects to another server")
        url = target
    raise FetchFailed(f"{url} redirects too often")


async def _body(answer: aiohttp.ClientResponse, url: str) -> bytes:
    if answer.status != HTTPStatus.OK:
        raise FetchFailed(f"{url} answered {answer.status}")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchFailed(f"{url} answered compressed, unasked")
    data = bytearray()
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > MAX_BYTES:
            raise FetchFailed(f"{url} answered more than {MAX_BYTES} bytes")
    return bytes(data)


def _safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc
