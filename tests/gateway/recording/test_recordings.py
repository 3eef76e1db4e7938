"""Recordings through the whole gateway: what is in the file before a byte goes on, and what goes nowhere without it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gateway.passage import Passage
from gateway.recording import file as recordingfile
from gateway.recording.recordings import RecordingCollector, Recordings
from gateway.recording.settings import RecordingSettings
from tests.gateway.answers import read
from tests.gateway.execstreams import RESIZE, STDIN, STDOUT, Spdy, fragment, message, size
from tests.gateway.gate import HEADS, Gate, gate, settle
from tests.gateway.wire import FakeExchange, Wire
from tunnel.ports import RequestBlock
from tunnel.websocket import BINARY

V5 = (b"sec-websocket-protocol", b"v5.channel.k8s.io")
EXEC = b"/clusters/a/api/v1/namespaces/pay/pods/p/exec?command=sh&stdin=true&stdout=true&tty=true"
REQUIRED = "- {recording: Required, sessions: [Terminal, Command]}"
OPTIONAL = "- {recording: Optional}"


class Recorded:
    """A gateway with recordings."""

    def __init__(self, g: Gate, recordings: Recordings, directory: Path) -> None:
        self.g = g
        self.recordings = recordings
        self.directory = directory

    def ask(self, target: bytes = EXEC, upgrade: bytes = b"websocket", more: bytes = b"") -> Wire:
        wire = self.g.connect()
        wire.send(
            b"POST " + target + b" HTTP/1.1\r\n" + HEADS + b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n"
            b"Sec-WebSocket-Protocol: v5.channel.k8s.io, base64.channel.k8s.io\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate\r\n" + more + b"\r\n"
        )  # fmt: skip
        return wire

    def switched(self, upgrade: bytes = b"websocket", *headers: tuple[bytes, bytes]) -> tuple[Wire, FakeExchange]:
        wire = self.ask(upgrade=upgrade)
        exchange = self.g.clusters.last
        exchange.switch(upgrade, list(headers or ((V5,) if upgrade == b"websocket" else ())))
        return wire, exchange

    @property
    def files(self) -> list[Path]:
        return sorted(self.directory.iterdir())

    @property
    def lines(self) -> list[Any]:
        (file,) = self.files
        return [json.loads(line) for line in file.read_bytes().splitlines()]

    @property
    def shown(self) -> str:
        return "".join(event[2] for event in self.lines[1:] if event[1] == "o")

    @property
    def notes(self) -> list[str]:
        return [event[2] for event in self.lines[1:] if event[1] == "m"]

    @property
    def last(self) -> dict[str, str]:
        """The annotations of the last record."""
        return dict(self.g.audit.events[-1]["annotations"])


@asynccontextmanager
async def recorded(tmp_path: Path, rules: str, **more: Any) -> AsyncIterator[Recorded]:
    policy = tmp_path / "recording.yaml"
    policy.write_text("apiVersion: kulvert.dev/v1alpha1\nkind: RecordingPolicy\nrules:\n" + rules)
    async with gate() as g:
        settings = RecordingSettings(policy_file=policy, **more)
        recordings = Recordings(settings, tmp_path, lambda: g.time[0], lambda: g.time[0] + 1e9)
        upstream = g.pipeline._upstream

        def prepared(passage: Passage, *more: Any) -> RequestBlock:
            block = passage.block = upstream(passage, *more)
            recordings.prepare(passage)
            return block

        g.pipeline._upstream = prepared  # type: ignore[method-assign, assignment] # where it asks
        yield Recorded(g, recordings, tmp_path / "recordings")
        for connection in tuple(g.door.connections):
            connection.abort()
        assert recordings.active == 0


async def test_a_terminal_over_websocket_is_written_down_before_it_is_shown(tmp_path: Path) -> None:
    async with recorded(tmp_path, REQUIRED) as r:
        wire, exchange = r.switched()
        await settle()
        assert b"101 Switching" in wire.take()
        typed = message(4, size(120, 40), masked=True) + message(0, b"whoami\r", masked=True)
        wire.send(typed)
        assert exchange.sent == typed
        r.g.time[0] += 1.5
        exchange.sink.on_data(message(1, b"root\r\n"))
        assert r.shown == "root\r\n"
        assert wire.received == b""  # not yet: it is written at the end of the turn
        await settle()
        assert wire.take() == message(1, b"root\r\n")
        assert r.lines == [
            {
                "version": 2, "width": 120, "height": 40, "timestamp": 1_000_001_000,
                "title": "exec a/pay/pods/p by alice", "command": "sh",
            },
            [1.5, "o", "root\r\n"],
        ]  # fmt: skip
        wire.eof()
        exchange.sink.on_end([])
        assert r.last["kulvert.dev/recording"] == r.files[0].name
        assert r.last["kulvert.dev/stream"] == "exec"
        assert r.g.audit.events[-1]["auditID"] + ".cast" == r.files[0].name


async def test_a_terminal_over_spdy_is_written_down(tmp_path: Path) -> None:
    async with recorded(tmp_path, REQUIRED, input=True) as r:
        wire, exchange = r.switched(b"SPDY/3.1".lower(), (b"x-stream-protocol-version", b"v4.channel.k8s.io"))
        client, cluster = Spdy(), Spdy()
        wire.send(client.open_all() + client.data(RESIZE, size(100, 30)) + client.data(STDIN, b"id\r"))
        down = b"".join(cluster.reply(stream) for stream in (1, 3, 5, 7)) + cluster.data(STDOUT, b"uid=0\r\n")
        for at in range(len(down)):
            exchange.sink.on_data(down[at : at + 1])
        await settle()
        assert wire.take().endswith(down)
        assert (r.lines[0]["width"], r.shown) == (100, "uid=0\r\n")
        assert [event[1:] for event in r.lines[1:] if event[1] == "i"] == [["i", "id\r"]]


async def test_what_is_typed_is_not_written_down_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with recorded(tmp_path, REQUIRED) as r:
        wire, exchange = r.switched()
        wire.send(message(0, b"planted password\r", masked=True))
        exchange.sink.on_data(message(1, b"ok"))
        assert b"planted" not in r.files[0].read_bytes()


async def test_its_file_is_private_and_compression_is_not_asked_for(tmp_path: Path) -> None:
    async with recorded(tmp_path, REQUIRED) as r:
        _, exchange = r.switched()
        assert stat.S_IMODE(r.files[0].stat().st_mode) == 0o600
        assert stat.S_IMODE(r.directory.stat().st_mode) == 0o700
        assert exchange.header(b"sec-websocket-extensions") == []
        assert exchange.header(b"sec-websocket-protocol")


@pytest.mark.parametrize(
    "target",
    [
        b"/clusters/a/api/v1/namespaces/pay/pods/p/portforward",
        b"/clusters/a/api/v1/namespaces/pay/services/s/proxy/socket",
        EXEC.replace(b"tty=true", b"tty=false"),
        EXEC.replace(b"tty=true", b"tty=0"),
        EXEC.replace(b"&tty=true", b""),
    ],
)
async def test_what_no_rule_speaks_of_goes_on_untouched(target: bytes, tmp_path: Path) -> None:
    async with recorded(tmp_path, "- {recording: Required}") as r:
        wire = r.ask(target)
        exchange = r.g.clusters.last
        assert exchange.header(b"sec-websocket-extensions") == [b"permessage-deflate"]
        exchange.switch(b"websocket", [V5])
        wire.send(b"no frames at all")
        exchange.sink.on_data(b"nor here")
        assert exchange.sent == b"no frames at all"
        assert r.files == []
        assert "kulvert.dev/recording" not in r.last


@pytest.mark.parametrize("tty", [b"tty=1", b"tty=", b"tty", b"tty=FALSE&tty=1", b"%74ty=yes", b"tty=t"])
async def test_a_terminal_is_one_however_it_is_asked_for(tty: bytes, tmp_path: Path) -> None:
    async with recorded(tmp_path, "- {recording: Required}") as r:
        r.ask(EXEC.replace(b"tty=true", tty))
        assert len(r.files) == 1


async def test_an_exec_that_the_cluster_refuses_leaves_no_file(tmp_path: Path) -> None:
    async with recorded(tmp_path, REQUIRED) as r:
        wire = r.ask()
        assert len(r.files) == 1
        r.g.clusters.last.respond(403, body=b"no")
        await settle()
        assert [got.status for got in read(wire.take())] == [403]
        assert r.files == []
        assert "kulvert.dev/recording" not in r.last


# --- where it must be recorded, and cannot be


async def refused(r: Recorded, wire: Wire) -> str:
    await settle()
    (answer,) = read(wire.take())
    assert answer.status == 503
    assert r.g.clusters.opened == []
    return str(json.loads(answer.body)["message"])


async def test_without_a_file_nothing_is_sent(tmp_path: Path) -> None:
    async with recorded(tmp_path, REQUIRED) as r:
        r.directory.rmdir()
        told = await refused(r, r.ask())
        assert told.startswith(
            "Kulvert's gateway must record this session, and cannot: its file cannot be opened (No such"
        )
        assert r.last["kulvert.dev/decision"] == "forbid"
        r.directory.mkdir()


@pytest.mark.parametrize(
    "target",
    [
        b"/clusters/a/api/v1/nodes/n/proxy/exec/pay/p/c?command=sh&tty=1",
        b"/clusters/a/api/v1/nodes/n/proxy/run/pay/p/c?cmd=sh",
        b"/clusters/a/apis/subresources.kubevirt.io/v1/namespaces/pay/virtualmachineinstances/v/console",
    ],
)
async def test_ways_around_a_required_recording_are_closed(target: bytes, tmp_path: Path) -> None:
    async with recorded(tmp_path, "- {recording: Required, namespaces: [pay]}") as r:
        assert "use kubectl exec" in await refused(r, r.ask(target))
        if b"nodes" in target:
            wire = r.g.connect()
            wire.send(b"POST " + target + b" HTTP/1.1\r\n" + HEADS + b"\r\n")
            assert "use kubectl exec" in await refused(r, wire)


async def test_a_nodes_metrics_stay_readable(tmp_path: Path) -> None:
    async with recorded(tmp_path, REQUIRED) as r:
        r.g.connect().send(b"GET /clusters/a/api/v1/nodes/n/proxy/metrics HTTP/1.1\r\n" + HEADS + b"\r\n")
        assert len(r.g.clusters.opened) == 1


@pytest.mark.parametrize(
    "headers",
    [
        [(b"sec-websocket-protocol", b"v9.channel.k8s.io")],
        [V5, V5],
        [V5, (b"sec-websocket-extensions", b"permessage-deflate")],
    ],
)
async def test_a_protocol_that_cannot_be_decoded_never_begins(headers: Any, tmp_path: Path) -> None:
    async with recorded(tmp_path, REQUIRED) as r:
        wire = r.ask()
        exchange = r.g.clusters.last
        exchange.switch(b"websocket", headers)
        await settle()
        (answer,) = read(wire.take())
        assert answer.status == 502
        assert "this session must be recorded, and cannot be" in json.loads(answer.body)["message"]
        assert exchange.cancelled is not None
        assert r.files == []


@pytest.mark.parametrize("up", [True, False])
async def test_what_cannot_be_decoded_does_not_go_on_and_ends_the_stream(up: bool, tmp_path: Path) -> None:
    async with recorded(tmp_path, REQUIRED) as r:
        wire, exchange = r.switched()
        await settle()
        wire.take()
        exchange.sink.on_data(message(1, b"before"))
        if up:
            wire.send(fragment(BINARY, b"\x00ls", final=False, masked=True))
        else:
            exchange.sink.on_data(message(1, b"masked", masked=True))
        await settle()
        assert exchange.sent == b""
        assert wire.take() == message(1, b"before")
        assert wire.closed
        assert exchange.cancelled is not None
        assert r.shown == "before"
        assert r.notes[0].startswith("the recording ends here: a")
        assert r.last["kulvert.dev/reason"].startswith("this session must be recorded, and cannot be: a")
        assert r.recordings.failed == 1


async def test_a_full_disk_ends_the_stream_before_anything_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recorded(tmp_path, REQUIRED) as r:
        wire, exchange = r.switched()
        await settle()
        wire.take()
        real = os.write
        written: list[bytes] = []

        def write(descriptor: int, data: bytes) -> int:
            if written:
                raise OSError(28, "No space left on device")
            written.append(data[:5])
            return real(descriptor, data[:5])

        monkeypatch.setattr(os, "write", write)
        exchange.sink.on_data(message(1, b"secret"))
        monkeypatch.undo()
        await settle()
        assert wire.take() == b""
        assert wire.closed
        assert "No space left on device" in r.last["kulvert.dev/reason"]


async def test_a_recording_is_bounded_and_ends_its_session(tmp_path: Path) -> None:
    async with recorded(tmp_path, REQUIRED, max_bytes=2000) as r:
        wire, exchange = r.switched()
        for _ in range(5):
            if exchange.cancelled is None:
                exchange.sink.on_data(message(1, b"x" * 600))
        assert r.files[0].stat().st_size < 2200
        assert r.notes == ["the recording ends here: the recording has reached its size limit"]
        assert "size limit" in r.last["kulvert.dev/reason"]
        await settle()
        assert wire.closed


# --- where it need not be


async def test_where_it_is_optional_the_session_goes_on_without_it(tmp_path: Path) -> None:
    async with recorded(tmp_path, OPTIONAL) as r:
        wire, exchange = r.switched()
        exchange.sink.on_data(message(1, b"before"))
        exchange.sink.on_data(b"\xff\xff\xff")
        exchange.sink.on_data(message(1, b"after"))
        wire.send(b"anything")
        await settle()
        assert wire.take().endswith(b"\xff\xff\xff" + message(1, b"after"))
        assert exchange.sent == b"anything"
        assert r.shown == "before"
        assert (r.recordings.failed, r.recordings.active) == (1, 0)


async def test_where_it_is_optional_no_file_is_no_obstacle(tmp_path: Path) -> None:
    async with recorded(tmp_path, OPTIONAL) as r:
        r.directory.rmdir()
        wire, exchange = r.switched()
        exchange.sink.on_data(b"opaque")
        await settle()
        assert wire.take().endswith(b"opaque")
        assert r.recordings.failed == 1
        r.directory.mkdir()


# --- its setting


async def test_a_new_policy_holds_from_the_next_session_on_and_a_bad_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with recorded(tmp_path, "- {recording: None}") as r:
        policy = tmp_path / "recording.yaml"
        r.ask()
        assert r.files == []
        policy.write_text(policy.read_text().replace("None", "Required"))
        r.recordings.reload()
        r.ask()
        assert len(r.files) == 1
        policy.write_text("nonsense")
        r.recordings.reload()
        assert "is older than its file" in caplog.text
        r.ask()
        assert len(r.files) == 2


def test_a_directory_that_others_may_enter_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="chmod 700"):
        recordingfile.private_directory(open_to_all)
    assert stat.S_IMODE(open_to_all.stat().st_mode) == 0o755


def test_a_file_that_is_there_already_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("link", "there"):
        (tmp_path / "there").touch()
        with pytest.raises(FileExistsError):
            recordingfile.RecordingFile(tmp_path / name, 100)


async def test_recordings_show_in_the_metrics(tmp_path: Path) -> None:
    async with recorded(tmp_path, REQUIRED) as r:
        r.switched()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(RecordingCollector(r.recordings))
        told = generate_latest(registry)
        assert b"kulvert_recordings_active 1.0" in told
        assert b"kulvert_recordings_total 1.0" in told
        assert b"kulvert_recordings_failed_total 0.0" in told
