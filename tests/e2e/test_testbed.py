"""The test bed itself, without any tunnel: what fails here is no fault of Kulvert's.

Streams run in both of kubectl's modes, because real users have both: WebSocket, and SPDY for older servers.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import cluster_objects as objects
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import (
    agent_identity,
    bind,
    create_namespace,
    create_pod,
    delete_pod,
    service_account_token,
    token_kubeconfig,
)
from tests.support.kubectl import SPDY
from tests.support.kubectl_terminal import terminal

MIB = 1 << 20
PODS = "/api/v1/namespaces/default/pods"
Mode = dict[str, str]


@pytest.fixture(params=["websocket", "spdy"])
def mode(request: pytest.FixtureRequest) -> Mode:
    return SPDY if request.param == "spdy" else {}


@pytest.fixture
async def web(cluster_a: Cluster) -> AsyncIterator[str]:
    await create_pod(cluster_a, "web")
    yield "web"
    await delete_pod(cluster_a, "web")


async def test_two_clusters_are_two(clusters: tuple[Cluster, Cluster]) -> None:
    assert len({cluster.uid for cluster in clusters}) == 2
    for cluster in clusters:
        nodes = (await cluster.kubectl("get", "nodes", "--no-headers")).check().out
        assert nodes.split()[:2] == ["node-1", "Ready"]


async def test_pods_run_where_they_were_made(clusters: tuple[Cluster, Cluster], web: str) -> None:
    here, there = [await c.kubectl("get", "pod", web, "--no-headers") for c in clusters]
    assert here.check().out.split()[:3] == [web, "1/1", "Running"]
    assert "NotFound" in there.err


async def test_a_pod_that_is_made_again_lives_however_late_its_predecessors_end_is_seen(cluster_a: Cluster) -> None:
    names = [f"again-{number}" for number in range(10)]
    await asyncio.gather(*(create_pod(cluster_a, name) for name in names))
    with cluster_a.slow("kwok"):
        await asyncio.gather(*(delete_pod(cluster_a, name) for name in names))
        made = await asyncio.gather(*(cluster_a.api.create(PODS, objects.pod(name)) for name in names))
    await asyncio.gather(*(create_pod(cluster_a, name) for name in names))
    kept = [await cluster_a.api.get(f"{PODS}/{name}") for name in names]
    assert [pod["metadata"]["uid"] for pod in kept] == [pod["metadata"]["uid"] for pod in made]
    await asyncio.gather(*(delete_pod(cluster_a, name) for name in names))


async def test_exec_says_where_it_ran_and_how_it_ended(cluster_a: Cluster, web: str, mode: Mode) -> None:
    where = await cluster_a.kubectl("exec", web, "--", "sh", "-c", "echo $CLUSTER $HOSTNAME", env=mode)
    assert where.check().out == "alpha web"
    failed = await cluster_a.kubectl("exec", web, "--", "sh", "-c", "echo bad >&2; exit 7", env=mode)
    assert (failed.returncode, failed.out) == (7, "")
    assert failed.err.splitlines() == ["bad", "command terminated with exit code 7"]
    absent = await cluster_a.kubectl("exec", web, "--", "no-such-command", env=mode)
    assert absent.returncode == 127


async def test_exec_carries_megabytes_both_ways(cluster_a: Cluster, web: str, mode: Mode) -> None:
    payload = os.urandom(5 * MIB)
    back = await cluster_a.kubectl("exec", "-i", web, "--", "cat", input=payload, env=mode)
    assert hashlib.sha256(back.check().stdout).digest() == hashlib.sha256(payload).digest()


async def test_exec_on_a_terminal_follows_the_size_of_the_window(cluster_a: Cluster, web: str) -> None:
    wait = 'until [ "$(stty size)" = "%s" ]; do sleep 0.05; done; echo now %s;'
    script = "".join(wait % (size, size) for size in ("30 90", "40 100")) + "read answer; exit $answer"
    with terminal(cluster_a.commands, "exec", "-it", web, "--", "sh", "-c", script, rows=30, columns=90) as it:
        await it.expect("now 30 90")
        it.resize(40, 100)
        await it.expect("now 40 100")
        it.type("3\n")
        assert await it.wait() == 3


async def test_attach_echoes_what_it_is_sent(cluster_a: Cluster, web: str, mode: Mode) -> None:
    async with cluster_a.commands.running("attach", "-q", "-i", web, env=mode) as attached:
        attached.stdin.write(b"hello\n")
        assert await attached.line() == "hello"
        attached.stdin.close()
        assert await attached.wait() == 0


async def test_cp_both_ways(cluster_a: Cluster, web: str, mode: Mode, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(MIB))
    (await cluster_a.kubectl("cp", source, f"default/{web}:copy", env=mode)).check()
    assert (cluster_a.files.container_files / "copy").read_bytes() == source.read_bytes()
    (await cluster_a.kubectl("cp", f"default/{web}:copy", back, env=mode)).check()
    assert back.read_bytes() == source.read_bytes()


async def test_logs_end_with_what_was_logged(cluster_a: Cluster, web: str) -> None:
    assert (await cluster_a.kubectl("logs", web)).check().out == ""
    cluster_a.log_file("default", web).write_text("one\ntwo\nthree\n")
    assert (await cluster_a.kubectl("logs", web)).check().out == "one\ntwo\nthree"
    assert (await cluster_a.kubectl("logs", "--tail=2", web)).check().out == "two\nthree"


async def test_logs_are_followed_line_by_line_until_the_file_goes(cluster_a: Cluster, web: str) -> None:
    log = cluster_a.log_file("default", web)
    log.write_text("old\n")
    async with cluster_a.commands.running("logs", "-f", web) as following:
        assert await following.line() == "old"
        for number in range(3):
            with log.open("a") as file:
                file.write(f"line {number}\n")
            assert await following.line() == f"line {number}"
        log.unlink()
        assert await following.wait() == 0


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    name = await reader.read()
    writer.write(b"hello " + name)
    await writer.drain()
    writer.close()


async def test_port_forward_reaches_the_same_port_here(cluster_a: Cluster, web: str, mode: Mode) -> None:
    async with await asyncio.start_server(_greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        forward = ("port-forward", "--address=127.0.0.1", web, f":{port}")
        async with cluster_a.commands.running(*forward, env=mode) as forwarding:
            local = (await forwarding.line()).split(" -> ")[0].rpartition(":")[2]
            answers = await asyncio.gather(*(_ask(int(local), f"{n}".encode()) for n in range(4)))
    assert answers == [b"hello 0", b"hello 1", b"hello 2", b"hello 3"]


async def _ask(port: int, name: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(name)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_namespace_goes_with_all_it_holds(cluster_a: Cluster) -> None:
    await create_namespace(cluster_a, "passing")
    await create_pod(cluster_a, "web", "passing")
    (await cluster_a.kubectl("delete", "namespace", "passing", "--timeout=25s")).check()
    assert "NotFound" in (await cluster_a.kubectl("get", "namespace", "passing")).err


async def test_an_agent_may_be_anybody_and_read_the_cluster_id(cluster_a: Cluster) -> None:
    identity = await agent_identity(cluster_a)
    assert identity.token_file.stat().st_mode & 0o777 == 0o600
    kubeconfig = await token_kubeconfig(cluster_a, identity.token, "agent.kubeconfig")
    someone = ("--as=someone", "--as-group=devs", "--as-uid=7")
    told = await cluster_a.kubectl("auth", "whoami", "-o", "json", *someone, kubeconfig=kubeconfig)
    user = json.loads(told.check().out)["status"]["userInfo"]
    assert user == {"username": "someone", "uid": "7", "groups": ["devs", "system:authenticated"]}
    get_uid = ("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
    assert (await cluster_a.kubectl(*get_uid, kubeconfig=kubeconfig)).check().out == cluster_a.uid


async def test_rbac_decides(cluster_a: Cluster) -> None:
    token = await service_account_token(cluster_a, "default", "nobody")
    kubeconfig = await token_kubeconfig(cluster_a, token, "nobody.kubeconfig")
    for refused in (["get", "pods"], ["get", "pods", "--as=someone"]):
        assert "forbidden" in (await cluster_a.kubectl(*refused, kubeconfig=kubeconfig)).err.lower()
    await bind(cluster_a, "view", user="system:serviceaccount:default:nobody")
    (await cluster_a.kubectl("get", "pods", kubeconfig=kubeconfig)).check()


async def test_an_api_server_comes_back_as_it_was(cluster_b: Cluster) -> None:
    await create_pod(cluster_b, "before")
    await cluster_b.stop_apiserver()
    assert "refused" in (await cluster_b.kubectl("get", "pods")).err
    await cluster_b.start_apiserver()
    await create_namespace(cluster_b, "after")
    await create_pod(cluster_b, "web", "after")
    pods = (await cluster_b.kubectl("get", "pods", "--all-namespaces", "-o", "name")).check().out
    assert sorted(pods.split()) == ["pod/before", "pod/web"]
    (await cluster_b.kubectl("delete", "namespace", "after", "--timeout=25s")).check()
    await delete_pod(cluster_b, "before")
