"""`pods/exec`: a local command, its streams carried over one WebSocket.

The caller has been authenticated and authorised before anything here runs. The command runs as the user who
started the sample, in the pod's temporary directory, with an environment of its own, and never outlives its
connection.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from cli.sample import channels
from cli.sample.call import Call
from cli.sample.channels import Channel, EndOfInput, Input, Resize
from cli.sample.fds import FdReader
from cli.sample.logs import container_of
from cli.sample.pods import Pod, PodHost, environment
from cli.sample.process import Command, Process
from cli.sample.resources import PODS
from cli.sample.status import ApiError, bad_request
from cli.sample.store import Store

_PING_EVERY = 10.0
_CLOSE_WITHIN = 2.0
_MESSAGE_LIMIT = 4 * 1024 * 1024


class _Over(Exception):
    """The client, or the pod, has gone."""


@dataclass(frozen=True, slots=True)
class Wish:
    argv: list[str]
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class Exec:
    def __init__(self, store: Store, pods: PodHost) -> None:
        self._store = store
        self._pods = pods

    async def serve(self, call: Call) -> web.StreamResponse:
        stored = self._store.get(PODS, call.asked.namespace, call.asked.name)
        container_of(stored.data, call)
        wish = _wish(call)
        socket = _upgrade(call)
        await socket.prepare(call.request)
        await self._run(socket, self._pods.pod(stored.uid), call.asked.name, wish)
        await socket.close()
        return socket

    async def _run(self, socket: web.WebSocketResponse, pod: Pod, hostname: str, wish: Wish) -> None:
        env = environment(pod.home, hostname, tty=wish.tty)
        command = Command(wish.argv, pod.home, env, stdin=wish.stdin, tty=wish.tty)
        try:
            async with self._pods.processes.run(command) as process:
                await _converse(socket, process, pod, wish)
        except ApiError as error:
            await socket.send_bytes(channels.failure(error))


async def _converse(socket: web.WebSocketResponse, process: Process, pod: Pod, wish: Wish) -> None:
    """Carry everything until the command has ended and its output is sent, or the other side is gone."""
    try:
        async with asyncio.TaskGroup() as group:
            aside = [group.create_task(_listen(socket, process)), group.create_task(_watch_pod(pod))]
            aside.append(group.create_task(_ping(socket)))
            await socket.send_bytes(channels.encode(_lowest(wish), b""))
            await _carry_out(socket, process, wish)
            for task in aside:
                task.cancel()
    except* (_Over, ConnectionError):
        pass  # nobody is left to tell


async def _carry_out(socket: web.WebSocketResponse, process: Process, wish: Wish) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_pump(socket, process.stdout, Channel.STDOUT, wanted=wish.stdout))
        if process.stderr is not None:
            group.create_task(_pump(socket, process.stderr, Channel.STDERR, wanted=wish.stderr))
        code = await process.wait()
        process.kill()  # what it left behind would hold the output open
    await socket.send_bytes(channels.exit_status(code))


async def _pump(socket: web.WebSocketResponse, reader: FdReader, channel: Channel, *, wanted: bool) -> None:
    """Output is read even where nobody asked for it, or the command would stop at a full pipe."""
    while data := await reader.read():
        if wanted:
            await socket.send_bytes(channels.encode(channel, data))
        await asyncio.sleep(0)


async def _listen(socket: web.WebSocketResponse, process: Process) -> None:
    """Hand on what the client sends; its going away ends the command."""
    protocol = socket.ws_protocol or channels.V4
    while True:
        message = await socket.receive()
        if message.type is not WSMsgType.BINARY:
            raise _Over
        try:
            await _deliver(channels.decode(message.data, protocol), process)
        except BrokenPipeError:
            continue  # the command reads no more; it may well go on
        except channels.ChannelError as error:
            raise _Over from error


async def _deliver(event: channels.Event, process: Process) -> None:
    match event:
        case Input(data) if process.stdin is not None:
            await process.stdin.write(data)
        case EndOfInput():
            await process.end_input()
        case Resize(width, height):
            process.resize(width, height)


async def _watch_pod(pod: Pod) -> None:
    await pod.gone.wait()
    raise _Over


async def _ping(socket: web.WebSocketResponse) -> None:
    """A client that vanished while its input was held back is noticed only by writing to it."""
    while True:
        await asyncio.sleep(_PING_EVERY)
        await socket.ping()


def _lowest(wish: Wish) -> Channel:
    """kube-apiserver opens with an empty message on the lowest channel that it writes to."""
    if wish.stdout:
        return Channel.STDOUT
    return Channel.STDERR if wish.stderr else Channel.ERROR


def _upgrade(call: Call) -> web.WebSocketResponse:
    wanted = call.request.headers.get("Upgrade", "").lower()
    if wanted.startswith("spdy"):
        why = "the Kulvert sample API server speaks WebSocket only, not SPDY: use kubectl 1.31 or newer"
        raise bad_request(why)
    if wanted != "websocket":
        raise bad_request("Upgrade request required")
    offered = call.request.headers.get("Sec-WebSocket-Protocol", "")
    if not {part.strip() for part in offered.split(",")} & set(channels.PROTOCOLS):
        raise bad_request(f"no WebSocket protocol in common: the server speaks {', '.join(channels.PROTOCOLS)}")
    return web.WebSocketResponse(
        protocols=channels.PROTOCOLS, compress=False, timeout=_CLOSE_WITHIN, max_msg_size=_MESSAGE_LIMIT
    )


def _wish(call: Call) -> Wish:
    argv = call.values("command")
    if not argv or not argv[0]:
        raise bad_request("you must specify at least one command for the container")
    wish = Wish(argv, call.flag("stdin"), call.flag("stdout"), call.flag("stderr"), call.flag("tty"))
    if not (wish.stdin or wish.stdout or wish.stderr):
        raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
    return wish
