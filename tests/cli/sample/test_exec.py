"""Exec of real local processes over the channel protocols."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from cli.sample import sessions
from cli.sample.channels import V4, V5, Channel
from cli.sample.processes import LIMIT
from tests.cli.sample.client import PODS, Client

EXEC = f"{PODS}/demo/exec"
CLOSE_STDIN = bytes([255, 0])


def url(*command: str, **flags: bool) -> str:
    pairs = [("command", part) for part in command] + [(name, "true") for name, on in flags.items() if on]
    return f"{EXEC}?{urlencode(pairs)}"


@asynccontextmanager
async def executing(
    client: Client, *command: str, _protocol: str = V5, **flags: bool
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    path = url(*command, **(flags or {"stdout": True, "stderr": True}))
    async with client.session.ws_connect(path, headers=client.headers(), protocols=(_protocol,)) as socket:
        assert socket.protocol == _protocol
        yield socket


async def finish(socket: aiohttp.ClientWebSocketResponse) -> tuple[dict[int, bytes], Any]:
    """Everything that came by channel, and the status that ended it."""
    output: dict[int, bytes] = {}
    async with asyncio.timeout(20):
        async for message in socket:
            channel, data = message.data[0], message.data[1:]
            if channel == Channel.ERROR:
                return output, json.loads(data)
            output[channel] = output.get(channel, b"") + data
    raise AssertionError("closed without a status")


async def run(client: Client, *command: str, **flags: bool) -> tuple[dict[int, bytes], Any]:
    async with executing(client, *command, _protocol=V5, **flags) as socket:
        return await finish(socket)


async def flood(socket: aiohttp.ClientWebSocketResponse) -> None:
    while True:
        await socket.send_bytes(b"\x00" + b"x" * 65536)


async def read_until(socket: aiohttp.ClientWebSocketResponse, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(10):
        while wanted not in seen:
            seen += (await socket.receive_bytes())[1:]
    return seen


async def alive_after(pid: int) -> bool:
    """Whether a process is still there after it has had time to be killed."""
    for _ in range(250):
        if not _is_alive(pid):
            return False
        await asyncio.sleep(0.02)
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_output_and_errors_come_on_their_own_channels(client: Client) -> None:
    output, status = await run(client, "sh", "-c", "echo out; echo err >&2")
    assert output == {1: b"out\n", 2: b"err\n"}
    assert status == {"metadata": {}, "status": "Success"}


@pytest.mark.parametrize(("script", "code"), [("exit 3", "3"), ("kill -9 $$", "137")])
async def test_the_exit_code_is_a_cause_in_the_status(client: Client, script: str, code: str) -> None:
    _, status = await run(client, "sh", "-c", script)
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": code}]


async def test_input_ends_when_its_channel_is_closed(client: Client) -> None:
    async with executing(client, "cat", stdin=True, stdout=True) as socket:
        await socket.send_bytes(b"\x00hello")
        await socket.send_bytes(CLOSE_STDIN)
        output, _ = await finish(socket)
    assert output == {1: b"hello"}


async def test_the_older_protocol_cannot_close_a_channel(client: Client) -> None:
    async with executing(client, "cat", _protocol=V4, stdin=True, stdout=True) as socket:
        await socket.send_bytes(b"\x00hello")
        assert await read_until(socket, b"hello") == b"hello"
        await socket.send_bytes(CLOSE_STDIN)
        async with asyncio.timeout(5):
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_much_goes_through_both_ways(client: Client) -> None:
    async with executing(client, "cat", stdin=True, stdout=True) as socket:
        reader = asyncio.create_task(finish(socket))
        for _ in range(64):
            await socket.send_bytes(b"\x00" + b"x" * 32768)
        await socket.send_bytes(CLOSE_STDIN)
        output, _ = await reader
    assert output == {1: b"x" * 32768 * 64}


async def test_input_after_the_command_stopped_reading_does_no_harm(client: Client) -> None:
    async with executing(client, "sh", "-c", "exec <&-; sleep 0.2; echo done", stdin=True, stdout=True) as socket:
        for _ in range(8):
            await socket.send_bytes(b"\x00" + b"x" * 32768)
        output, status = await finish(socket)
    assert (output, status["status"]) == ({1: b"done\n"}, "Success")


async def test_a_terminal_has_a_size_that_changes(client: Client) -> None:
    script = "tty >/dev/null && stty size; read x; stty size"
    async with executing(client, "sh", "-c", script, stdin=True, stdout=True, tty=True) as socket:
        await read_until(socket, b"0 0")
        await socket.send_bytes(b"\x04" + json.dumps({"Width": 101, "Height": 37}).encode())
        await socket.send_bytes(b"\x00\n")
        output, status = await finish(socket)
    assert b"37 101" in output[1]
    assert status["status"] == "Success"


async def test_a_terminal_is_the_commands_own_so_that_it_can_be_interrupted(client: Client) -> None:
    async with executing(client, "cat", stdin=True, stdout=True, tty=True) as socket:
        await socket.send_bytes(b"\x00on\n")
        await read_until(socket, b"on\r\non")  # the second is cat's own, so cat is there
        await socket.send_bytes(b"\x00\x03")
        _, status = await finish(socket)
    assert status["details"]["causes"][0]["message"] == "130"


async def test_a_terminal_can_be_interrupted_though_we_run_in_the_background(client: Client) -> None:
    """Where a shell has had us ignore SIGINT, which programs inherit."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        async with executing(client, "cat", stdin=True, stdout=True, tty=True) as socket:
            await socket.send_bytes(b"\x00on\n")
            await read_until(socket, b"on\r\non")
            await socket.send_bytes(b"\x00\x03")
            _, status = await finish(socket)
    finally:
        signal.signal(signal.SIGINT, before)
    assert status["details"]["causes"][0]["message"] == "130"


async def test_the_end_of_a_terminals_input_is_typed(client: Client) -> None:
    async with executing(client, "cat", stdin=True, stdout=True, tty=True) as socket:
        await socket.send_bytes(b"\x00a\n")
        await socket.send_bytes(CLOSE_STDIN)
        _, status = await finish(socket)
    assert status["status"] == "Success"


async def test_a_command_does_not_outlive_its_connection(client: Client) -> None:
    async with executing(client, "sh", "-c", "echo $$; exec sleep 60") as socket:
        pid = int(await read_until(socket, b"\n"))
        socket._response.close()
    assert not await alive_after(pid)


async def test_nor_does_it_when_its_input_is_held_back(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.sample.exec._PING_EVERY", 0.1)
    async with executing(client, "sh", "-c", "echo $$; exec sleep 60", stdin=True, stdout=True) as socket:
        pid = int(await read_until(socket, b"\n"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(socket), 0.5)
        socket._response.close()
    assert not await alive_after(pid)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="jobs are found by way of /proc")
async def test_what_it_left_in_the_background_ends_with_it(client: Client) -> None:
    output, _ = await run(client, "sh", "-c", "set -m; sleep 60 & echo $!")
    assert not await alive_after(int(output[1]))


async def test_it_ends_with_its_pod(client: Client) -> None:
    async with executing(client, "sh", "-c", "echo $$; exec sleep 60") as socket:
        pid = int(await read_until(socket, b"\n"))
        await client.ask("DELETE", f"{PODS}/demo")
        assert not await alive_after(pid)


async def test_nothing_of_the_servers_environment_is_seen(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET_OF_THE_SERVER", "x")
    output, _ = await run(client, "env")
    names = {line.split("=")[0] for line in output[1].decode().splitlines()}
    assert names == {"PATH", "HOME", "HOSTNAME", "LANG", "KULVERT_SAMPLE"}


async def test_it_runs_in_the_pods_own_directory(client: Client) -> None:
    await run(client, "sh", "-c", "echo x > file")
    output, _ = await run(client, "sh", "-c", "cat file; pwd")
    content, directory = output[1].decode().split()
    assert (content, Path(directory).parent.name.startswith("kulvert-sample-")) == ("x", True)


@pytest.mark.parametrize("command", ["no-such-program", "./no-such-file", "/nor/this"])
@pytest.mark.parametrize("tty", [False, True])
async def test_a_program_that_is_not_there_is_told_in_the_status(client: Client, command: str, tty: bool) -> None:
    _, status = await run(client, command, stdout=True, tty=tty)
    assert (status["status"], status["reason"]) == ("Failure", "InternalError")
    assert "executable file not found" in status["message"]


async def test_there_is_an_end_to_how_many_run_at_once(client: Client) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(client, "sleep", "1.5")) for _ in range(LIMIT + 1)]
    refused = [task.result()[1].get("reason") for task in tasks]
    assert "TooManyRequests" in refused
    assert None in refused


UPGRADE = {"Connection": "Upgrade"}
WEBSOCKET = {**UPGRADE, "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
REFUSED = [
    (url("id", stdout=True), {**UPGRADE, "Upgrade": "SPDY/3.1"}, 400, "speaks WebSocket only"),
    (url("id", stdout=True), {}, 400, "Upgrade request required"),
    (url("id", stdout=True), {**WEBSOCKET, "Sec-WebSocket-Protocol": "channel.k8s.io"}, 400, "no WebSocket protocol"),
    (url("id"), WEBSOCKET, 400, "at least 1 of stdin"),
    (url(stdout=True), WEBSOCKET, 400, "at least one command"),
    (url("id", stdout=True) + "&container=none", WEBSOCKET, 400, "container none is not valid"),
    (f"{PODS}/none/exec?command=id&stdout=1", WEBSOCKET, 404, "not found"),
    (f"{PODS}/demo/attach", {**UPGRADE, "Upgrade": "SPDY/3.1"}, 501, "does not implement attach"),
    (f"{PODS}/demo/portforward", WEBSOCKET, 501, "does not implement port-forward"),
    (f"{PODS}/demo/proxy", {}, 404, "could not find"),
]


@pytest.mark.parametrize(("path", "headers", "code", "message"), REFUSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_stream_that_cannot_be_is_refused_with_a_reason(
    client: Client, method: str, path: str, headers: dict[str, str], code: int, message: str
) -> None:
    async with client.raw(method, path, headers) as response:
        assert (response.status, message in (await response.json())["message"]) == (code, True)


def test_a_session_without_members_is_killed_in_peace() -> None:
    sessions.kill(2**22 + 1)
