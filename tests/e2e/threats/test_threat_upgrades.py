"""Only a checked 101 turns a connection into a pipe. Anything else that outlives its exchange would carry the agent's
privileges into the client's next request (CVE-2018-1002105).
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.e2e.threats.conftest import Connect
from tests.support.cluster_api import until
from tests.support.hostile_client import (
    ACCEPT,
    KEY,
    SWITCHED,
    HostileClient,
    exchanged,
    request,
    review,
    seen,
    together,
    upgrade,
)
from tests.support.hostile_platform import RECORDED, ThreatPlatform
from tests.support.recording_apiserver import OK, RecordingApiServer, Reply, Wire, always, by_case

EXEC = "/api/v1/namespaces/default/pods/nobody/exec?command=sh&stdout=true"
SPDY = ("Connection: Upgrade", "Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io")


def _refusal(status: int) -> bytes:
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: text/plain\r\n"
    return f"{head}\r\n".encode() if status in (204, 304) else f"{head}Content-Length: 2\r\n\r\nno".encode()


STATUSES = (400, 403, 200, 401, 404, 426, 500, 302, 204, 304)


@pytest.mark.parametrize("spdy", [False, True], ids=["websocket", "spdy"])
async def test_a_failed_upgrade_left_an_authenticated_connection_open(
    spdy: bool, connect: Connect, recorder: RecordingApiServer
) -> None:
    """CVE-2018-1002105: the client pipelines a second request, in the same segment and after the answer."""
    before = len(recorder.requests)
    second = b"GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def refused(number: int, status: int) -> None:
        target = f"/clusters/{RECORDED}{EXEC}&case={number}"
        asked = request(target, *SPDY, method="POST") if spdy else upgrade(target)
        async with connect() as client:
            await client.say(asked + second + request(f"/clusters/{RECORDED}/second"))
            answer = await client.answer()
            await client.say(second)
            assert (answer.status, answer.get("connection")) == (status, "close")
            assert await client.rest() == b""

    with recorder.answering(by_case({str(status): _refusal(status) for status in STATUSES})):
        await together({str(status): refused(number, status) for number, status in enumerate(STATUSES)})
    targets = sorted(one.target for one in recorder.requests[before:])
    assert targets == sorted(f"{EXEC}&case={number}".encode() for number in range(len(STATUSES)))
    assert b"/second" not in b"".join(recorder.strays)


async def test_the_connection_of_a_failed_upgrade_is_not_used_again(
    client: HostileClient, connect: Connect, recorder: RecordingApiServer
) -> None:
    with recorder.answering(_refusal(403)):
        await client.say(upgrade(f"/clusters/{RECORDED}{EXEC}"))
        assert (await client.answer()).status == 403
    used = recorder.requests[-1].connection
    async with connect() as other:
        await other.say(request(f"/clusters/{RECORDED}/after"))
        assert (await other.answer()).status == 200
    assert recorder.find(b"/after")[-1].connection != used


async def test_a_failed_upgrade_at_the_real_api_server(connect: Connect) -> None:
    raw = review("alpha").replace(b"/clusters/alpha", b"")

    async def refused(path: str, *statuses: int) -> None:
        async with connect() as client:
            await client.say(upgrade(f"/clusters/alpha{path}") + raw + review("alpha"))
            assert (await client.answer()).status in statuses
            await client.say(raw)
            assert await client.rest() == b""

    await together(
        {
            "200": refused("/api/v1/namespaces", 200),
            "404": refused("/apis/nothing.here/v1/x", 404),
            "no such pod": refused(EXEC, 400, 404),
        }
    )


async def test_a_watch_that_timed_out_left_an_authenticated_connection_open(client: HostileClient) -> None:
    """The same by another way: the second request is routed and authenticated by itself, for another cluster too."""
    watch = request("/clusters/alpha/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=1")
    raw = review("alpha").replace(b"/clusters/alpha", b"")
    await client.say(watch + review("beta") + review("alpha") + raw)
    assert (await client.answer()).status == 200
    for _ in ("beta", "alpha"):
        assert seen(await client.answer("POST")).user == "ada"
    assert (await client.answer("POST")).status == 404


BAD_SWITCHES = {
    "without Upgrade": SWITCHED.replace(b"Upgrade: websocket\r\n", b""),
    "without Connection": SWITCHED.replace(b"Connection: Upgrade\r\n", b""),
    "Connection names something else": SWITCHED.replace(b"Connection: Upgrade", b"Connection: keep-alive"),
    "to another protocol": SWITCHED.replace(b"Upgrade: websocket", b"Upgrade: spdy/3.1"),
    "to a list": SWITCHED.replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
    "twice": SWITCHED.replace(b"Upgrade: websocket", b"Upgrade: websocket\r\nUpgrade: h2c"),
    "with another key's answer": SWITCHED.replace(ACCEPT.encode(), b"AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "without the key's answer": SWITCHED.replace(b"Sec-WebSocket-Accept", b"X"),
    "with a body": SWITCHED.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"),
    "chunked": SWITCHED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "a protocol that was not offered": SWITCHED.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: evil\r\n\r\n"),
    "by HTTP/1.0": SWITCHED.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "100 in its place": SWITCHED.replace(b"101", b"100"),
}


async def test_only_a_checked_101_turns_into_a_hijack(connect: Connect, recorder: RecordingApiServer) -> None:
    heard: list[bytes] = []

    def switching(switch: bytes) -> Reply:
        def reply(wire: Wire) -> None:
            wire.say(switch + b"poison")
            heard.append(wire.rest())

        return reply

    async def refused(number: int) -> None:
        async with connect() as client:
            await client.say(upgrade(f"/clusters/{RECORDED}{EXEC}&case={number}") + b"early bytes of the client")
            answer = await client.answer()
            assert answer.status == 502
            assert b"poison" not in answer.body
            assert await client.rest() == b""

    with recorder.answering(by_case({name: switching(switch) for name, switch in BAD_SWITCHES.items()})):
        await together({name: refused(number) for number, name in enumerate(BAD_SWITCHES)})
    assert heard == [b""] * len(BAD_SWITCHES)


async def test_a_101_that_nobody_asked_for(client: HostileClient, recorder: RecordingApiServer) -> None:
    with recorder.answering(SWITCHED + b"poison"):
        answer = await exchanged(client, request(f"/clusters/{RECORDED}/plain"))
    assert answer is not None
    assert answer.status == 502
    assert (await client.whoami("beta")).user == "ada"


PROTOCOLS = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
    "TLS": ("Connection: Upgrade", "Upgrade: TLS/1.2"),
    "a list": ("Connection: Upgrade", "Upgrade: websocket, h2c"),
    "two lines": ("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"),
    "another SPDY": ("Connection: Upgrade", "Upgrade: SPDY/3"),
    "nothing": ("Connection: Upgrade", "Upgrade:"),
    "with a body": ("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 40"),
    "chunked": ("Connection: Upgrade", "Upgrade: websocket", "Transfer-Encoding: chunked"),
}


async def test_only_spdy_and_websocket_upgrades_are_passed(connect: Connect, recorder: RecordingApiServer) -> None:
    before = len(recorder.requests)

    async def refused(lines: tuple[str, ...]) -> None:
        async with connect() as client:
            await client.say(request(f"/clusters/{RECORDED}{EXEC}", *lines) + request(f"/clusters/{RECORDED}/second"))
            assert 400 <= (await client.answer()).status < 500
            assert await client.rest() == b""

    await together({name: refused(lines) for name, lines in PROTOCOLS.items()})
    assert len(recorder.requests) == before


async def test_an_upgrade_that_connection_does_not_name_is_none(
    client: HostileClient, recorder: RecordingApiServer
) -> None:
    await client.say(request(f"/clusters/{RECORDED}/unnamed", "Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}"))
    assert (await client.answer()).status == 200
    assert recorder.find(b"/unnamed")[-1].all(b"upgrade") == []
    assert (await client.whoami("beta")).user == "ada"


@pytest.mark.parametrize("size", [12, 40_000])
async def test_data_buffered_at_the_hijack_was_lost(
    size: int, client: HostileClient, recorder: RecordingApiServer
) -> None:
    """k3s #6216: bytes in the same segment as the upgrade, either way, arrive."""
    early = bytes(range(1, 251)) * (size // 250) + b"the client's"
    heard = []

    def reply(wire: Wire) -> None:
        wire.say(SWITCHED + b"the server's")
        heard.append(wire.exactly(len(early)))
        wire.say(b"got it")
        raise EOFError

    with recorder.answering(always(reply)):
        await client.say(upgrade(f"/clusters/{RECORDED}{EXEC}") + early)
        assert (await client.answer()).status == 101
        assert await client.some(18) == b"the server'sgot it"
        assert await client.rest() == b""
    assert heard == [early]


@pytest.mark.parametrize("by_client", [True, False])
async def test_an_ended_stream_is_told_to_both_ends_and_nothing_follows_it(
    by_client: bool, client: HostileClient, recorder: RecordingApiServer
) -> None:
    heard: list[bytes] = []

    def reply(wire: Wire) -> None:
        wire.say(SWITCHED)
        heard.append(wire.exactly(5))
        if by_client:
            heard.append(wire.rest())
        raise EOFError

    async def told() -> bool:
        return len(heard) == 2

    with recorder.answering(always(reply)):
        await client.say(upgrade(f"/clusters/{RECORDED}{EXEC}"))
        assert (await client.answer()).status == 101
        await client.say(b"hello")
        if by_client:
            client.end()
            await until(told, "the API server to be told", 5)
            assert heard == [b"hello", b""]
        else:
            await client.say(request(f"/clusters/{RECORDED}/second"))
            assert await client.rest() == b""
    assert not recorder.find(b"/second")


MEANINGS = {
    "exec by GET": ("GET", "pods/p/exec", "create", True),
    "exec by POST": ("POST", "pods/p/exec", "create", True),
    "attach by GET": ("GET", "pods/p/attach", "create", True),
    "portforward by GET": ("GET", "pods/p/portforward", "create", True),
    "ephemeral containers": ("PATCH", "pods/p/ephemeralcontainers", "patch", False),
}


@pytest.mark.parametrize("case", MEANINGS.values(), ids=MEANINGS)
async def test_exec_by_get_is_known_by_meaning(
    case: tuple[str, str, str, bool], client: HostileClient, threat_platform: ThreatPlatform
) -> None:
    method, path, verb, upgraded = case
    target = f"/clusters/{RECORDED}/api/v1/namespaces/meaning/{path}"
    await client.say(upgrade(target, method=method) if upgraded else request(target, method=method, body=b"{}"))
    audit_id = (await client.answer()).get("audit-id")
    record = await _audited(threat_platform, audit_id)
    assert record["verb"] == verb
    assert record["objectRef"]["subresource"] == path.rpartition("/")[2]
    assert record["annotations"]["kulvert.dev/interactive"] == "true"


@pytest.mark.parametrize("path", ["nodes/node-1/proxy/exec/default/p/c?command=sh", "nodes/node-1/%70roxy/x"])
async def test_nodes_proxy_and_websocket_is_exec_too(
    path: str, client: HostileClient, threat_platform: ThreatPlatform
) -> None:
    await client.say(upgrade(f"/clusters/{RECORDED}/api/v1/{path}"))
    record = await _audited(threat_platform, (await client.answer()).get("audit-id"))
    assert (record["objectRef"]["resource"], record["objectRef"]["subresource"]) == ("nodes", "proxy")
    assert record["annotations"]["kulvert.dev/interactive"] == "true"


async def test_a_plain_read_is_not_called_interactive(client: HostileClient, threat_platform: ThreatPlatform) -> None:
    await client.say(request(f"/clusters/{RECORDED}/api/v1/namespaces/meaning/pods/p/log"))
    record = await _audited(threat_platform, (await client.answer()).get("audit-id"))
    assert "kulvert.dev/interactive" not in record["annotations"]


async def _audited(platform: ThreatPlatform, audit_id: str | None) -> dict[str, Any]:
    assert audit_id

    async def found() -> dict[str, Any] | None:
        records = [one for one in platform.audit() if one["auditID"] == audit_id]
        return records[-1] if records else None

    record = await until(found, f"audit record {audit_id}", 5)
    assert record is not None
    return record


async def test_a_100_continue_pair_that_could_part_two_requests(
    client: HostileClient, recorder: RecordingApiServer
) -> None:
    """An upstream's own 100 is not relayed: ours is the only one."""
    with recorder.answering(b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + OK):
        head = request(f"/clusters/{RECORDED}/expect", "Expect: 100-continue", "Content-Length: 2", method="POST")
        await client.say(head)
        await asyncio.sleep(0.05)
        await client.say(b"{}")
        answer = await client.answer("POST")
    assert (answer.status, answer.interims) == (200, (100,))
    assert (await client.whoami("beta")).user == "ada"
