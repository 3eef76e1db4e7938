"""The audit webhook, against a real receiver over TLS: what arrives, what is tried again, what is never done."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from auth.pki import CertificateAuthority
from auth.yamlnodes import YamlError
from gateway.audit.webhook import Batching, Webhook
from gateway.audit.webhookconfig import WebhookTarget, load_target

QUICK = Batching(size=3, wait=0.02, first_backoff=0.01, last_backoff=0.02, timeout=2.0, capacity=8, tolerance=0.1)


class Receiver:
    """Answers as it is told, then 200; `bodies` are what came."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.always: int | None = None
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.elsewhere = 0

    async def take(self, request: web.Request) -> web.Response:
        body = await request.json()
        await self.hold.wait()
        status = self.always or (self.answers.pop(0) if self.answers else 200)
        if status == 413 and len(body["items"]) == 1:
            status = 200
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if status == 200:
            self.bodies.append(body)
        return web.Response(status=status, headers={"location": "/elsewhere"} if status == 307 else {})

    async def wrong(self, request: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()

    @property
    def ids(self) -> list[str]:
        return [item["auditID"] for body in self.bodies for item in body["items"]]


AUTHORITY = CertificateAuthority.create("audit test", time.time())
STRANGER = CertificateAuthority.create("stranger", time.time())


@asynccontextmanager
async def receiving(name: str = "localhost") -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/audit", receiver.take)
    app.router.add_route("*", "/elsewhere", receiver.wrong)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    issued = AUTHORITY.issue_server([name], time.time(), 3600)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(issued.certificate + issued.key)
        file.flush()
        context.load_cert_chain(file.name)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield receiver, f"https://localhost:{port}/audit"
    finally:
        receiver.hold.set()
        await runner.cleanup()


def target(url: str, authority: CertificateAuthority = AUTHORITY, **more: Any) -> WebhookTarget:
    return WebhookTarget(url, ssl.create_default_context(cadata=authority.certificate_pem.decode()), **more)


def webhook(to: WebhookTarget, batching: Batching = QUICK, **more: Any) -> Webhook:
    return Webhook(to, batching, asyncio.get_running_loop().time, lambda: 0.5, **more)


def line(number: object) -> bytes:
    return b'{"auditID":"%b"}\n' % str(number).encode()


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (tests wait for many things, none of which has an event)
            await asyncio.sleep(0.005)


async def test_batches_are_event_lists_in_their_order() -> None:
    async with receiving() as (receiver, url):
        async with webhook(target(url, token="secret")) as hook:
            for number in range(7):
                hook.record(line(number))
            assert hook.waiting == 7
        assert receiver.ids == [str(number) for number in range(7)]
        assert [len(body["items"]) for body in receiver.bodies] == [3, 3, 1]
        assert receiver.bodies[0]["kind"] == "EventList"
        assert receiver.bodies[0]["apiVersion"] == "audit.k8s.io/v1"
        assert receiver.headers[0]["authorization"] == "Bearer secret"
        assert receiver.headers[0]["content-type"] == "application/json"
        assert (hook.waiting, hook.lost, hook.problem) == (0, 0, None)


async def test_a_batch_that_is_not_full_waits_only_so_long() -> None:
    async with receiving() as (receiver, url), webhook(target(url)) as hook:
        hook.record(line(1))
        await until(lambda: receiver.ids == ["1"])
        hook.record(line(2))
        await until(lambda: receiver.ids == ["1", "2"])


@pytest.mark.parametrize("status", [500, 503, 429, 408, 307])
async def test_what_did_not_arrive_is_sent_again_and_redirects_lead_nowhere(status: int) -> None:
    async with receiving() as (receiver, url), webhook(target(url)) as hook:
        receiver.answers = [status, status]
        hook.record(line(1))
        await until(lambda: hook.problem is not None)
        assert str(status) in str(hook.problem)
        await until(lambda: receiver.ids == ["1"] and hook.problem is None)
        assert (receiver.elsewhere, hook.lost) == (0, 0)


async def test_a_batch_that_is_too_large_goes_in_halves() -> None:
    async with receiving() as (receiver, url), webhook(target(url)) as hook:
        receiver.answers = [413, 413]
        for number in range(3):
            hook.record(line(number))
        await until(lambda: len(receiver.ids) == 3)
        assert receiver.ids == ["0", "1", "2"]
        await until(lambda: hook.waiting == 0)


async def test_a_receiver_that_is_away_stands_against_new_requests_after_a_while() -> None:
    async with webhook(target("https://127.0.0.1:1/"), patience=0.05) as hook:
        assert hook.ready()
        hook.record(line(1))
        await until(lambda: hook.problem is not None)
        assert hook.ready()
        await until(lambda: not hook.ready())
    assert hook.lost == 1  # at the end: nobody took it


async def test_a_full_queue_stands_against_new_requests_and_is_bounded() -> None:
    async with receiving() as (receiver, url), webhook(target(url)) as hook:
        receiver.hold.clear()
        for number in range(100):
            hook.record(line(number))
        assert not hook.ready()
        assert (hook.waiting, hook.lost) == (16, 84)
        receiver.hold.set()
        await until(lambda: len(receiver.ids) == 16)
        await until(hook.ready)


async def test_where_records_may_be_lost_nothing_is_refused() -> None:
    async with receiving() as (receiver, url), webhook(target(url), refuse=False, patience=0.2) as hook:
        receiver.always = 400
        for number in range(100):
            hook.record(line(number))
        assert hook.ready()
        assert hook.lost == 92
        await until(lambda: hook.lost == 100)
        receiver.always = None
        hook.record(line("later"))
        await until(lambda: receiver.ids == ["later"])


async def test_a_batch_that_nobody_will_ever_take_waits_where_none_may_be_lost() -> None:
    async with receiving() as (receiver, url), webhook(target(url)) as hook:
        receiver.always = 400
        hook.record(line(1))
        await until(lambda: not hook.ready())
        assert hook.lost == 0
        receiver.always = None
        await until(lambda: receiver.ids == ["1"])


async def test_the_end_waits_for_a_slow_receiver_within_a_bound() -> None:
    async with receiving() as (receiver, url):
        receiver.hold.clear()
        began = time.monotonic()
        async with webhook(target(url), patience=0.2) as hook:
            hook.record(line(1))
        assert 0.15 < time.monotonic() - began < 2
        assert hook.lost == 1


async def test_the_end_tries_at_once_what_was_waiting_for_another_try() -> None:
    slow = Batching(size=3, wait=0.01, first_backoff=60.0, last_backoff=60.0, timeout=2.0)
    async with receiving() as (receiver, url):
        async with webhook(target(url), slow) as hook:
            receiver.answers = [500]
            hook.record(line(1))
            await until(lambda: hook.problem is not None)
        assert receiver.ids == ["1"]


@pytest.mark.parametrize("why", ["authority", "name"])
async def test_another_server_than_the_named_one_gets_nothing(why: str) -> None:
    async with receiving("localhost" if why == "authority" else "elsewhere.test") as (receiver, url):
        to = target(url, STRANGER if why == "authority" else AUTHORITY)
        async with webhook(to, patience=0.05) as hook:
            hook.record(line(1))
            await until(lambda: hook.problem is not None)
            assert "ertificate" in str(hook.problem)
        assert receiver.headers == []


async def test_a_server_may_have_another_name_than_its_address() -> None:
    async with receiving("elsewhere.test") as (receiver, url):
        async with webhook(target(url, server_name="elsewhere.test")) as hook:
            hook.record(line(1))
        assert receiver.ids == ["1"]


async def test_its_task_ends_with_whoever_is_cancelled() -> None:
    async with receiving() as (receiver, url):
        receiver.hold.clear()

        async def serve() -> None:
            async with webhook(target(url), patience=10.0) as hook:
                hook.record(line(1))
                await asyncio.sleep(60)

        task = asyncio.create_task(serve())
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not [one for one in asyncio.all_tasks() if one.get_name() == "audit webhook"])


# --- the kubeconfig


def document(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> dict[str, Any]:
    server = {"server": "https://siem.test/audit", **(cluster or {})}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "siem", "cluster": server}],
        "users": [{"name": "kulvert", "user": user or {}}],
        "contexts": [{"name": "default", "context": {"cluster": "siem", "user": "kulvert"}}],
        "current-context": "default",
    }


def load(directory: Path, content: dict[str, Any]) -> WebhookTarget:
    path = directory / "webhook.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_target(path)


def test_a_file_written_for_kube_apiserver_is_understood(tmp_path: Path) -> None:
    issued = AUTHORITY.issue_client("kulvert", [], time.time(), 3600)
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.certificate_pem)
    cluster = {"certificate-authority": "ca.crt", "tls-server-name": "other.test"}
    pair = {"client-certificate-data": issued.certificate, "client-key-data": issued.key}
    user = {name: base64.b64encode(pem).decode() for name, pem in pair.items()} | {"tokenFile": "token"}
    found = load(tmp_path, document(cluster, user))
    assert (found.url, found.server_name) == ("https://siem.test/audit", "other.test")
    assert found.tls.verify_mode is ssl.CERT_REQUIRED
    assert found.tls.check_hostname
    (tmp_path / "token").write_text("first\n")
    assert found.authorization() == "Bearer first"
    (tmp_path / "token").write_text("second\n")
    assert found.authorization() == "Bearer second"


def test_a_secret_is_in_no_repr(tmp_path: Path) -> None:
    assert "planted" not in repr(load(tmp_path, document(user={"token": "planted"})))
    found = load(tmp_path, document(user={"username": "u", "password": "planted"}))
    assert "planted" not in repr(found)
    assert found.authorization() == "Basic " + base64.b64encode(b"u:planted").decode()


@pytest.mark.parametrize(
    ("cluster", "user", "message"),
    [
        ({"server": "http://siem.test"}, {}, "must be an https:// URL"),
        ({"server": "https://u:planted@siem.test"}, {}, "must be an https:// URL"),
        ({"insecure-skip-tls-verify": True}, {}, "insecure-skip-tls-verify: is not served"),
        ({"certificate-authority": "nothing"}, {}, "certificate-authority: cannot be read: No such file"),
        ({"certificate-authority-data": "x"}, {}, "is not base64"),
        ({"certificate-authority-data": base64.b64encode(b"x").decode()}, {}, "is no PEM certificate"),
        ({"proxy-url": "http://proxy"}, {}, "unknown field"),
        ({}, {"exec": {"command": "aws"}}, "unknown field"),
        ({}, {"client-key-data": base64.b64encode(b"x").decode()}, "go together"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_place(
    cluster: dict[str, Any], user: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(YamlError, match=r"webhook\.yaml:\d+: ") as refused:
        load(tmp_path, document(cluster, user))
    assert message in str(refused.value)
    assert "planted" not in str(refused.value)


def test_a_context_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match="there is no context named 'other'"):
        load(tmp_path, document() | {"current-context": "other"})
