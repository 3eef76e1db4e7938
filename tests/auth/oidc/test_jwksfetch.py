"""Fetching keys over real TLS, from servers that behave, and from others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from auth.oidc.config import KeySource
from auth.oidc.jwks import BadKeySet
from auth.oidc.jwksfetch import MAX_BYTES, FetchFailed, HttpFetcher, key_set_url, max_age
from tests.support.cluster_pki import Authority
from tests.support.oidc_site import KEYS, Handler, Site, serving


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with serving(tmp_path) as running:
        yield running


def answering(*args: Any, **kwargs: Any) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(*args, **kwargs)

    return handler


async def test_keys_are_found_through_discovery(site: Site) -> None:
    fetched = await site.fetcher().fetch()
    assert [key.kid for key in fetched.keys.keys] == ["k0"]
    assert fetched.max_age == 300
    assert not any("Authorization" in request.headers or request.cookies for request in site.seen)


async def test_discovery_may_be_elsewhere_if_it_names_the_issuer(site: Site) -> None:
    async def discovery(_: web.Request) -> web.StreamResponse:
        return site.document(issuer="https://issuer.test")

    site.discovery = discovery
    assert (await site.fetcher(issuer="https://issuer.test").fetch()).keys.keys
    with pytest.raises(FetchFailed, match="not of the issuer"):
        await site.fetcher().fetch()


async def test_a_certificate_of_a_stranger_is_not_believed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    for authorities in (other.pem.decode(), None):
        with pytest.raises(FetchFailed, match=r"(?i)certificate"):
            await site.fetcher(authorities=authorities).fetch()


async def test_a_redirect_stays_at_its_server(site: Site) -> None:
    async def keys(request: web.Request) -> web.StreamResponse:
        if request.path == "/keys":
            return web.Response(status=307, headers={"Location": "/keys2"})
        return web.Response(body=KEYS)

    site.keys = keys
    assert (await site.fetcher().fetch()).keys.keys


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.test/keys",
        "http://127.0.0.1/keys",
        "https://127.0.0.1:1/keys",
        "file:///etc/passwd",
        "//evil.test",
    ],
)
async def test_a_redirect_elsewhere_is_not_followed(site: Site, target: str) -> None:
    site.keys = answering(status=302, headers={"Location": target})
    with pytest.raises(FetchFailed, match="another server"):
        await site.fetcher().fetch()


async def test_redirects_come_to_an_end(site: Site) -> None:
    site.keys = answering(status=302, headers={"Location": "/keys"})
    with pytest.raises(FetchFailed, match="too often"):
        await site.fetcher().fetch()
    assert len(site.seen) < 7


async def test_too_much_is_not_read(site: Site) -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while request.transport is not None and not request.transport.is_closing():
                await answer.write(b" " * 65536)
                await asyncio.sleep(0)
        gone.set()
        return answer

    site.keys = endless
    with pytest.raises(FetchFailed, match=f"more than {MAX_BYTES} bytes"):
        await site.fetcher().fetch()
    await asyncio.wait_for(gone.wait(), 2)


async def test_a_compressed_answer_is_not_unpacked(site: Site) -> None:
    site.keys = answering(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    with pytest.raises(FetchFailed, match="compressed"):
        await site.fetcher().fetch()


async def test_a_slow_issuer_is_not_waited_for(site: Site) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await answer.write(b" ")
                await asyncio.sleep(0.02)
        return answer

    for name in ("discovery", "keys"):
        setattr(site, name, slow)
        with pytest.raises(FetchFailed, match=r"within 0\.2 s"):
            await site.fetcher(0.2).fetch()


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (answering(status=503), "answered 503"),
        (answering(status=204), "answered 204"),
        (answering(body=b"<html>"), "not JSON"),
        (answering(body=b""), "not JSON"),
        (answering(body=b'{"keys": 7}'), "no list"),
        (answering(body=b"{", headers={"Content-Type": "text/html; charset=nonsense"}), "not JSON"),
    ],
)
async def test_what_is_no_key_set_is_told(site: Site, handler: Handler, reason: str) -> None:
    site.keys = handler
    with pytest.raises(FetchFailed, match=reason):
        await site.fetcher().fetch()


@pytest.mark.parametrize(
    "raw", [b"", b"\0" * 99, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"HTTP/9 x\r\n\r\n"]
)
async def test_whatever_a_server_says_it_is_a_failure_and_nothing_else(tmp_path: Path, raw: bytes) -> None:
    authority = Authority(tmp_path, "raw")
    pair = authority.server("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(raw)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(FetchFailed):
            await HttpFetcher(KeySource(url, url, authority.pem.decode()), 2.0).fetch()


async def test_nobody_there_is_told() -> None:
    with pytest.raises(FetchFailed, match=r"127\.0\.0\.1"):
        await HttpFetcher(KeySource("https://127.0.0.1:1", "https://127.0.0.1:1/x")).fetch()


SOURCE = KeySource("https://issuer.test", "https://issuer.test/x")


def test_the_key_set_may_be_at_another_server() -> None:
    document = json.dumps({"issuer": "https://issuer.test", "jwks_uri": "https://keys.test/a?b=c"})
    assert key_set_url(document.encode(), SOURCE) == "https://keys.test/a?b=c"


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://issuer.test/"},
        {"issuer": "https://ISSUER.test"},
        {"issuer": ["https://issuer.test"]},
        {"jwks_uri": "http://issuer.test/keys"},
        {"jwks_uri": "https:///keys"},
        {"jwks_uri": "https://user:pw@issuer.test/keys"},
        {"jwks_uri": "https://[bad/keys"},
        {"jwks_uri": "/keys"},
        {"jwks_uri": None},
        {"jwks_uri": ["https://issuer.test/keys"]},
    ],
)
def test_a_discovery_document_must_be_the_issuers_own_and_name_https(changes: dict[str, Any]) -> None:
    document = {"issuer": "https://issuer.test", "jwks_uri": "https://issuer.test/keys", **changes}
    with pytest.raises(BadKeySet, match=r"not of the issuer|no jwks_uri"):
        key_set_url(json.dumps(document).encode(), SOURCE)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", None),
        ("public", None),
        ("max-age=21599, must-revalidate", 21599),
        ("public,MAX-AGE=60", 60),
        ('max-age="5"', 5),
        ("s-maxage=7", None),
        ("x-max-age=7", None),
        ("max-age=-1", None),
        ("no-store, max-age=60", 0),
        ("No-Cache", 0),
    ],
)
def test_cache_control_is_read(header: str, seconds: float | None) -> None:
    assert max_age(header) == seconds
