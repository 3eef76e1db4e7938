"""Secrets are nowhere on the server's side: the store, the logs, the wire. A tap between agent and server ends TLS, and
reads every frame.

One platform, to which every kind of request is sent once by every kind of credential; then everything that the server
has, and all that the link carried, is searched for what was planted.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from auth.pki import CertificateAuthority
from tests.e2e.conftest import _bind as bind_admins
from tests.e2e.threats.test_threat_secrets import spellings
from tests.support.cluster import Cluster
from tests.support.dex import Dex
from tests.support.hostile_client import request
from tests.support.hostile_platform import ThreatPlatform
from tests.support.tapped import Tapped, ask, attach, ends, grants, key_texts, settings_of, tap, traffic
from tests.support.wiretap import Stream
from tunnel.frames import CONTROL

KEYS = {"ca.pem", "agents-ca.pem", "server.pem", "token-keys.json"}
"""Kulvert's own private keys: these files are what they are for, and nothing else may have them."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tapped(
    testbed: Path, clusters: tuple[Cluster, Cluster], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Tapped]:
    """After all the traffic."""
    alpha, directory = clusters[0], tmp_path_factory.mktemp("wire")
    await bind_admins(clusters)
    async with AsyncExitStack() as stack:
        dex = await stack.enter_async_context(Dex(testbed))
        front = CertificateAuthority.create("front proxies", time.time())
        platform = ThreatPlatform(directory / "platform", grants=grants())
        platform.settings |= settings_of(directory, dex, front, alpha)
        stack.push_async_callback(platform.stop)
        await platform.start_server()
        found = Tapped(platform, await tap(stack, platform, directory))
        await attach(found, alpha, stack)
        await traffic(found, alpha, dex, front)
        yield found


# --- what was found


def _hits(secrets: dict[str, str], places: dict[str, bytes]) -> list[tuple[str, str]]:
    return [
        (name, place)
        for name, secret in secrets.items()
        for place, text in places.items()
        if any(one in text for one in spellings(secret))
    ]


def _on_disk(found: Tapped) -> dict[str, bytes]:
    """The state directory with all that is in it: store, recordings, audit log."""
    state = found.platform.state
    return {str(path.relative_to(state)): path.read_bytes() for path in state.rglob("*") if path.is_file()}


@pytest.mark.asyncio(loop_scope="module")
async def test_the_traffic_was_what_it_was_meant_to_be(tapped: Tapped) -> None:
    """Otherwise nothing would be proved: requests came through, and the tap saw them."""
    status = {what: answer.status for what, answer in tapped.answers}
    for name in (
        "an ID token",
        "Kulvert's token",
        "a token of the hub",
        "a token of the cluster",
        "a certificate",
        "a front proxy",
    ):
        assert status[f"{name}: discovery"] == status[f"{name}: list"] == 200, (name, status)
        assert status[f"{name}: create"] == 201
    for name in ("a token for a vault", "a token of nobody's", "a password"):
        assert status[f"{name}: discovery"] == 401
    assert status["an ID token: exec of a browser"] == 101
    carried = b"".join(one.data for one in tapped.tap.streams())
    for planted in (b"planted-for-the-wire", b"planted-in-exec", b"planted-on-stdin"):
        assert planted in carried, planted
    assert any(b"planted-on-stdin" in text for name, text in _on_disk(tapped).items() if name.startswith("recordings"))
    assert b"\0debug\0" in Path(f"/proc/{tapped.platform.server().pid}/cmdline").read_bytes() + b"\0"


@pytest.mark.asyncio(loop_scope="module")
async def test_no_credential_is_in_the_store_or_the_state(tapped: Tapped) -> None:
    places = _on_disk(tapped)
    assert {"clusters.db", "audit.log", "grants.yaml", *KEYS} <= places.keys()
    assert _hits(tapped.secrets, places) == []
    holders = {place for _, place in _hits(ends("managed", tapped.managed), places)}
    assert [Path(one).name for one in holders] == ["alpha.token"]


@pytest.mark.asyncio(loop_scope="module")
async def test_kulverts_own_keys_are_in_their_files_alone(tapped: Tapped) -> None:
    places = _on_disk(tapped) | _said(tapped)
    for file in KEYS:
        keys = key_texts(file, places[file])
        assert keys, file
        assert {place for _, place in _hits(keys, places)} == {file}


def _said(found: Tapped) -> dict[str, bytes]:
    """What both processes said: logs at debug level, and every answer of the gateway's own."""
    logs = {path.name: path.read_bytes() for path in found.platform.logs}
    own = ("clusters", "grants", "version", "metrics", "nowhere", "as somebody")
    answers = {
        what: answer.head + answer.body for what, answer in found.answers if what.endswith(own) or answer.status >= 400
    }
    return logs | answers


@pytest.mark.asyncio(loop_scope="module")
async def test_no_credential_is_in_a_log_a_metric_or_an_answer(tapped: Tapped) -> None:
    admin = tapped.platform.certificate("admin", ["kulvert:admins"])
    for path in ("/metrics", "/readyz?verbose", "/healthz", "/openid/v1/jwks", "/.well-known/kulvert-configuration"):
        await ask(tapped, f"{path}: metrics", admin, request(path))
    places = _said(tapped)
    assert any(b"kulvert_" in text for text in places.values())
    every = tapped.secrets | ends("managed", tapped.managed)
    assert _hits(every, places) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_no_credential_is_on_the_wire_but_one_that_is_passed_through(tapped: Tapped) -> None:
    """It is in the HEAD of its own exchanges, once in each, and nowhere else."""
    streams = list(tapped.tap.streams())
    assert len(streams) > 100
    places = {_name(one): one.data for one in streams} | dict(tapped.tap.bare())
    through = ends("it", tapped.through)
    others = {name: one for name, one in tapped.secrets.items() if one not in through.values() and name != "query"}
    assert _hits(others, places) == []
    passed = [one for one in streams if one.passes_through]
    assert len(passed) > 10
    line = b"\r\nauthorization: Bearer " + tapped.through.encode() + b"\r\n"
    for one in streams:
        count = one.data.count(tapped.through.encode())
        assert (count, one.data.count(line)) == ((1, 1) if one.passes_through else (0, 0)), one
        assert b"impersonate" not in one.data.lower() or not one.passes_through
    raw = [f"bytes down of connection {one.connection}" for one in passed]  # nothing masks the server's own frames
    assert {place for _, place in _hits(through, places)} <= {*map(_name, passed), *raw}
    for name in set(raw):
        assert places[name].count(tapped.through.encode()) <= raw.count(name)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_managed_token_crosses_once_as_the_answer_to_the_servers_call(tapped: Tapped) -> None:
    found = [one for one in tapped.tap.streams() if tapped.managed.encode() in one.data]
    assert [(one.kind, one.way, one.exchange) for one in found] == [(CONTROL, "up", 0)]
    assert found[0].data.count(tapped.managed.encode()) == 1


def _name(one: Stream) -> str:
    return f"connection {one.connection} {one.way} exchange {one.exchange} type {one.kind}"
