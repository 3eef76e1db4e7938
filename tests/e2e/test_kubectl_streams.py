"""exec, attach and cp through the gateway, in both of kubectl's modes, up to 100 MiB each way."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.cluster import Cluster
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.kubectl import SPDY
from tests.support.kubectl_terminal import terminal
from tests.support.kubectl_through import Through, through
from tests.support.platform import Platform

MIB = 1 << 20
LARGE = 100 * MIB


@pytest.fixture(params=["websocket", "spdy"])
def kubectl(request: pytest.FixtureRequest, platform: Platform, cluster_a: Cluster) -> Through:
    return through(platform, cluster_a, SPDY if request.param == "spdy" else None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(cluster_a: Cluster) -> AsyncIterator[str]:
    await create_pod(cluster_a, "streams")
    yield "streams"
    await delete_pod(cluster_a, "streams")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """100 MiB that nothing can compress."""
    path = tmp_path_factory.mktemp("large") / "large"
    path.write_bytes(os.urandom(LARGE))
    yield path
    path.unlink()


def tell_rate(what: str, began: float) -> None:
    """For who looks (pytest -rP): how fast a large transfer was that began then."""
    print(f"{what}: {LARGE / 1e6 / (time.monotonic() - began):.0f} MB/s")


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- exec


async def test_exec_runs_there_and_keeps_stderr_apart(kubectl: Through, pod: str) -> None:
    told = await kubectl.run("exec", pod, "--", "sh", "-c", "echo $CLUSTER $HOSTNAME; echo aside >&2")
    assert (told.check().out, told.err) == ("alpha streams", "aside")


@pytest.mark.parametrize("code", [1, 255])
async def test_exec_passes_the_exit_code_on(kubectl: Through, pod: str, code: int) -> None:
    ended = await kubectl.run("exec", pod, "--", "sh", "-c", f"echo out; echo err >&2; exit {code}")
    assert (ended.returncode, ended.out) == (code, "out")
    words = [f"command terminated with exit code {code}"] if code else []
    assert ended.err.splitlines() == ["err", *words]


async def test_exec_of_what_is_not_there_says_so(kubectl: Through, pod: str) -> None:
    assert (await kubectl.same("exec", pod, "--", "no-such-command")).returncode == 127


async def test_exec_answers_each_line_at_once(kubectl: Through, pod: str) -> None:
    async with kubectl.running("exec", "-i", pod, "--", "cat") as running:
        for number in range(5):
            running.stdin.write(b"line %d\n" % number)
            assert await running.line(timeout=5 if number == 0 else 1) == f"line {number}"
        running.stdin.close()
        assert await running.wait() == 0


async def test_exec_ends_with_its_command_though_stdin_stays_open(kubectl: Through, pod: str) -> None:
    async with kubectl.running("exec", "-i", pod, "--", "sh", "-c", "read line; echo got $line; exit 3") as running:
        running.stdin.write(b"it\n")
        assert await running.line() == "got it"
        assert await running.wait() == 3


async def test_exec_carries_100_mib_through_stdin_and_back(kubectl: Through, pod: str, large: Path) -> None:
    payload, began = large.read_bytes(), time.monotonic()
    back = await kubectl.run("exec", "-i", pod, "--", "cat", input=payload)
    tell_rate("there and back", began)
    assert checksum(back.check().stdout) == checksum(payload)
    assert back.err == ""


async def test_exec_carries_stdout_and_stderr_of_megabytes_apart(kubectl: Through, pod: str) -> None:
    script = "head -c 5000000 /dev/zero | tr '\\0' o & head -c 5000000 /dev/zero | tr '\\0' e >&2; wait"
    told = await kubectl.run("exec", pod, "--", "sh", "-c", script)
    assert told.check().stdout == b"o" * 5_000_000
    assert told.stderr == b"e" * 5_000_000


async def test_ten_execs_at_once_do_not_mix(kubectl: Through, pod: str) -> None:
    payloads = [os.urandom(MIB) for _ in range(10)]
    backs = await asyncio.gather(*(kubectl.run("exec", "-i", pod, "--", "cat", input=sent) for sent in payloads))
    assert [(back.returncode, len(back.stdout), back.err) for back in backs] == [(0, MIB, "")] * len(payloads)
    assert [checksum(back.stdout) for back in backs] == [checksum(sent) for sent in payloads]


async def test_a_killed_kubectl_ends_its_command(kubectl: Through, pod: str, cluster_a: Cluster) -> None:
    """kube-apiserver closes the stream to the node, and a command that reads its stdin then sees the end."""
    mark = cluster_a.files.container_files / "ended"
    async with kubectl.running("exec", "-i", pod, "--", "sh", "-c", "echo up; cat; touch ended") as running:
        assert await running.line() == "up"
        running.process.kill()

    async def ended() -> bool:
        return mark.exists()

    await cluster_a.wait_for(ended, "the command to see the end of its stdin", 5)
    mark.unlink()


# --- terminals


async def test_a_terminal_has_the_size_of_the_window_and_follows_it(kubectl: Through, pod: str) -> None:
    wait = 'until [ "$(stty size)" = "%s" ]; do sleep 0.05; done; echo now %s;'
    script = "".join(wait % (size, size) for size in ("30 90", "40 100", "20 60")) + "read answer; exit $answer"
    with terminal(kubectl, "exec", "-it", pod, "--", "sh", "-c", script, rows=30, columns=90) as it:
        await it.expect("now 30 90")
        it.resize(40, 100)
        await it.expect("now 40 100")
        it.resize(20, 60)
        await it.expect("now 20 60")
        it.type("3\n")
        assert await it.wait() == 3


async def test_a_terminal_echoes_interrupts_and_ends(kubectl: Through, pod: str) -> None:
    script = "trap 'echo caught' INT; echo up; cat; cat; exit 4"
    with terminal(kubectl, "exec", "-it", pod, "--", "sh", "-c", script) as it:
        await it.expect("up")
        it.type("typed\n")
        await it.expect("typed\r\ntyped")
        it.type("\x03")
        await it.expect("caught")
        it.type("\x04")
        assert await it.wait() == 4


async def test_a_terminal_without_stdin_shows_what_is_printed(kubectl: Through, pod: str) -> None:
    """kubectl asks for no terminal there then."""
    with terminal(kubectl, "exec", "-t", pod, "--", "sh", "-c", "tty; exit 5") as it:
        await it.expect("not a tty\r\n")
        assert await it.wait() == 5


# --- attach


async def test_attach_joins_the_running_process_and_leaves_it(kubectl: Through, pod: str) -> None:
    async with kubectl.running("attach", "-q", "-i", pod) as attached:
        for number in range(3):
            attached.stdin.write(b"hello %d\n" % number)
            assert await attached.line() == f"hello {number}"
        attached.stdin.close()
        assert await attached.wait() == 0


async def test_attach_without_stdin_shows_what_is_logged(kubectl: Through, pod: str, cluster_a: Cluster) -> None:
    log = cluster_a.log_file("default", pod)
    log.touch()
    async with kubectl.running("attach", "-q", pod) as attached:
        for number in range(3):
            with log.open("a") as file:
                file.write(f"line {number}\n")
            assert await attached.line() == f"line {number}"
        log.unlink()
        assert await attached.wait() == 0


async def test_attach_on_a_terminal(kubectl: Through, pod: str) -> None:
    with terminal(kubectl, "attach", "-q", "-it", pod) as it:
        it.type("typed\n")
        await it.expect("typed\r\ntyped")
        it.type("\x04")
        assert await it.wait() == 0


# --- cp


async def test_cp_carries_100_mib_there_and_back(
    kubectl: Through, pod: str, cluster_a: Cluster, large: Path, tmp_path: Path
) -> None:
    there, back = cluster_a.files.container_files / "copy", tmp_path / "back"
    began = time.monotonic()
    (await kubectl.run("cp", large, f"default/{pod}:copy")).check()
    tell_rate("there", began)
    assert checksum(there.read_bytes()) == checksum(large.read_bytes())
    began = time.monotonic()
    (await kubectl.run("cp", f"default/{pod}:copy", back)).check()
    tell_rate("back", began)
    assert checksum(back.read_bytes()) == checksum(large.read_bytes())
    there.unlink()


async def test_cp_of_a_directory(kubectl: Through, pod: str, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    (source / "deep" / "er").mkdir(parents=True)
    for number in range(200):
        (source / "deep" / f"{number}").write_text(f"{number}\n" * number)
    (await kubectl.run("cp", source, f"default/{pod}:tree")).check()
    (await kubectl.run("cp", f"default/{pod}:tree", back)).check()
    names = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    assert [(back / name).read_text() for name in names] == [(source / name).read_text() for name in names]
    (await kubectl.run("exec", pod, "--", "rm", "-r", "tree")).check()
