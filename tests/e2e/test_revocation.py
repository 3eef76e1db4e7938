"""Everything by which a user may lose access, on live streams of a real kubectl: each ends in time and says so where it
can, the audit knows why, the next request is refused, and nobody else notices.

One show for the whole file: all streams run at once, everything is taken away at once, and tests look at what came of
it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509

from auth.pki import CertificateAuthority, Issued
from auth.tokens import SKEW
from gateway.server import WATCH
from tests.e2e.conftest import _bind as bind_admins
from tests.support.cluster import Cluster
from tests.support.cluster_config import write_kubeconfig
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.kubectl import SPDY, Kubectl, Result, Running
from tests.support.platform import PROGRAM, Grant, Platform, grant

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROMISED = 30.0
AT_MOST = 20.0
"""Seconds that we allow: 9 are usual here, for a look at what others change, the next at live streams, and sweeps."""
LIFETIME = 20
"""Seconds that credentials and grants are good which end by themselves: until all streams run."""
ADMINS = "kulvert:admins"
POD = "withdrawn"

SHELL = ["sh", "-c", "echo begun; exec cat"]
BUSY = ["sh", "-c", "echo begun; while sleep 0.02; do seq 1 20000; done"]
LOST = "error: lost connection to pod"


@dataclass(frozen=True)
class Kind:
    """A kubectl that goes on. `audited` is what the audit calls its stream."""

    begins: str
    args: tuple[str, ...]
    audited: str
    says: str = ""
    """How it ends: {} is what Kulvert told it. Nothing, and it is content."""
    env: Mapping[str, str] = field(default_factory=dict)


FORWARD = ("port-forward", f"pod/{POD}", ":80")
KINDS = {
    "watch": Kind(f"pod/{POD}", ("get", "pods", POD, "-w", "-o", "name"), "watch"),
    "logs": Kind("begun", ("logs", "-f", POD), "log-follow", "unexpected EOF\nerror: unexpected EOF"),
    "exec": Kind("begun", ("exec", "-i", POD, "--", *SHELL), "exec", "error: {}"),
    "exec-busy": Kind("begun", ("exec", POD, "--", *BUSY), "exec", "error: {}"),
    "attach": Kind("typed", ("attach", "-q", "-i", POD), "attach", "error: {}"),
    "exec-spdy": Kind("begun", ("exec", "-i", POD, "--", *SHELL), "exec", env=SPDY),
    "forward": Kind("Forwarding", FORWARD, "portforward", LOST),
    "forward-spdy": Kind("Forwarding", FORWARD, "portforward", LOST, env=SPDY),
}
UNKNOWN = "Kulvert's gateway does not know you: {}; check the credentials in your kubeconfig"
FORBIDDEN = "Kulvert's gateway does not let you do this: {}; ask who keeps its grants"
UNAUTHORIZED = "error: You must be logged in to the server ({})"
HANDSHAKE = ""
"""A certificate of nobody's gets no request through; kubectl reports the connection in one way or another."""
REFUSED = "Error from server (Forbidden): {}"
REVOKED = "the client certificate has been revoked"
NOBODY = "no grant lets '{}' reach cluster 'alpha'"
REMOVING = "Kulvert's gateway lets nobody into cluster beta any more: it is being removed"


@dataclass
class Row:
    """Somebody who loses access. `take` does it; where it is None, that happens by itself at the moment `ends`."""

    user: str
    kinds: tuple[str, ...]
    reason: str
    """For the audit."""
    message: str
    """For the user, with the reason for {}."""
    refused: str
    """How kubectl reports the message from now on."""
    credentials: dict[str, str]
    take: Callable[[], Awaitable[object]] | None = None
    ends: float = 0.0
    cluster: str = "alpha"
    streams: dict[str, Running] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)
    again: tuple[Result, ...] = ()
    """Another request, and the one that client-go makes when a watch has broken off."""

    @property
    def told(self) -> str:
        return self.message.replace("{}", self.reason)


@dataclass(frozen=True)
class Ended:
    """How a kubectl ended. `at` is epoch seconds."""

    at: float
    code: int
    err: str


async def drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass


def signed(issued: Issued) -> dict[str, str]:
    data = {"client-certificate-data": issued.certificate, "client-key-data": issued.key}
    return {name: base64.b64encode(pem).decode() for name, pem in data.items()}


def loaded(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.certificate)


def claims(token: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==")))


class Show:
    """The platform, and everybody on it."""

    def __init__(self, platform: Platform, alpha: Cluster, authorities: dict[str, CertificateAuthority]) -> None:
        self.platform = platform
        self.clusters = {alpha.name: alpha}
        self._commands = alpha.commands
        self._authorities = authorities
        self._grants: dict[str, Grant] = {}
        self.rows: dict[str, Row] = {}
        self.bystander = Row("bystander", tuple(kind for kind in KINDS if kind != "exec-busy"), "", "", "", {})
        self.audited: list[dict[str, Any]] = []

    async def kulvert(self, *args: str) -> str:
        """A command on the server's machine."""
        process = await asyncio.create_subprocess_exec(
            PROGRAM, *args, "--state-dir", str(self.platform.state),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode()

    def granted(self, row: Row, *, group: str = "", **more: Any) -> None:
        """Puts a grant for somebody into the file."""
        made = grant(row.user, ["*"], groups=[group]) if group else grant(row.user, ["*"], users=[row.user])
        self._grants[row.user] = made | more
        self.platform.set_grants(self._grants.values())

    async def ungranted(self, user: str) -> None:
        """Takes it out."""
        del self._grants[user]
        self.platform.set_grants(self._grants.values())

    def certificate(self, user: str, groups: tuple[str, ...] = (ADMINS,), lifetime: float = 3600.0) -> Issued:
        return self.platform.certificate(user, groups, lifetime)

    async def token(self, user: str, ttl: str = "1h") -> str:
        args = ("kubeconfig", "alpha", "--user", user, "--group", ADMINS, "--token", "--ttl", ttl, "-o", "-")
        *_, line = [line for line in (await self.kulvert(*args)).splitlines() if " token: " in line]
        return line.partition(" token: ")[2].strip()

    def kubectl(self, row: Row) -> Kubectl:
        path = self.platform.directory / f"{row.user}.kubeconfig"
        url = f"{self.platform.url}/clusters/{row.cluster}"
        write_kubeconfig(path, row.cluster, url, self.platform.ca, row.credentials)
        return Kubectl(self._commands.binary, path, self._commands.home)

    # --- the rows

    async def cast(self) -> None:
        """Everybody, with credentials and grants; those first whose end comes by itself."""
        await self._who_expire()
        await self._who_show_credentials()
        await self._who_lose_a_grant()
        self._who_else()
        self.bystander.credentials = signed(self.certificate("bystander"))
        self.granted(self.bystander)

    def add(self, name: str, row: Row, *, granted: bool = True) -> Row:
        self.rows[name] = row
        if granted:
            self.granted(row)
        return row

    async def _who_expire(self) -> None:
        ends = float(int(time.time() + LIFETIME))
        token = await self.token("late-token", f"{LIFETIME}s")
        self.add("an expired token", Row(
            "late-token", ("watch", "exec", "exec-spdy"), "the token has expired", UNKNOWN, UNAUTHORIZED,
            {"token": token}, ends=claims(token)["exp"] + SKEW,
        ))  # fmt: skip
        issued = self.certificate("late-certificate", lifetime=ends - time.time())
        self.add("an expired certificate", Row(
            "late-certificate", ("logs", "attach", "forward"), "the client certificate has expired or is not valid yet",
            UNKNOWN, HANDSHAKE, signed(issued), ends=loaded(issued).not_valid_after_utc.timestamp(),
        ))  # fmt: skip
        row = self.add("an expired grant", Row(
            "late-grant", ("watch", "attach", "forward-spdy"),
            f"{NOBODY.format('late-grant')} (grant 'late-grant' has expired)",
            FORBIDDEN, REFUSED, signed(self.certificate("late-grant")), ends=ends,
        ), granted=False)  # fmt: skip
        self.granted(row, expirationTimestamp=datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    async def _who_show_credentials(self) -> None:
        issued = self.certificate("serial")
        self.add("a revoked certificate", Row(
            "serial", ("watch", "exec", "exec-busy", "forward"), REVOKED, UNKNOWN, UNAUTHORIZED, signed(issued),
            lambda: self.revoke(issued),
        ))  # fmt: skip
        self.add("a revoked user", Row(
            "revoked", ("logs", "exec-spdy", "attach"), REVOKED, UNKNOWN, UNAUTHORIZED,
            signed(self.certificate("revoked")), lambda: self.kulvert("certificate", "revoke", "--user", "revoked"),
        ))  # fmt: skip
        other = self._authorities["other"].issue_client("of-another-ca", [ADMINS], time.time(), 3600.0)
        self.add("a removed authority", Row(
            "of-another-ca", ("watch", "exec", "forward"), "no authenticator of this gateway knows these credentials",
            UNKNOWN, HANDSHAKE, signed(other), self._remove_authority,
        ))  # fmt: skip
        token = await self.token("bearer")
        self.add("a revoked token", Row(
            "bearer", ("logs", "exec", "forward"), "the token has been revoked", UNKNOWN, UNAUTHORIZED,
            {"token": token}, lambda: self.kulvert("certificate", "revoke", claims(token)["jti"]),
        ))  # fmt: skip

    async def _who_lose_a_grant(self) -> None:
        self.add("a grant that left the file", Row(
            "filed", ("watch", "exec-busy", "exec-spdy", "forward-spdy"), NOBODY.format("filed"), FORBIDDEN, REFUSED,
            signed(self.certificate("filed")), lambda: self.ungranted("filed"),
        ))  # fmt: skip
        await self.kulvert("grant", "create", "stored", "--user", "stored", "--cluster", "*")
        self.add("a grant deleted from the store", Row(
            "stored", ("logs", "exec"), NOBODY.format("stored"), FORBIDDEN, REFUSED,
            signed(self.certificate("stored")), lambda: self.kulvert("grant", "delete", "stored"),
        ), granted=False)  # fmt: skip
        row = self.add("a grant to a group that is gone", Row(
            "member", ("watch", "attach"), NOBODY.format("member"), FORBIDDEN, REFUSED,
            signed(self.certificate("member", (ADMINS, "team"))), lambda: self.ungranted("member"),
        ), granted=False)  # fmt: skip
        self.granted(row, group="team")

    def _who_else(self) -> None:
        left = self.certificate("leaver", (ADMINS, "crew"))
        row = self.add("a membership that is gone", Row(
            "leaver", ("logs", "exec"), REVOKED, UNKNOWN, REFUSED, signed(left), lambda: self._leave(row, left)
        ), granted=False)  # fmt: skip
        self.granted(row, group="crew")
        self.add("a cluster that is being removed", Row(
            "resident", ("watch", "exec", "logs"), REMOVING, REMOVING, REFUSED,
            signed(self.certificate("resident")), self._remove_cluster, cluster="beta",
        ))  # fmt: skip

    async def revoke(self, issued: Issued) -> None:
        await self.kulvert("certificate", "revoke", f"{loaded(issued).serial_number:x}")

    async def _remove_authority(self) -> None:
        write_authorities(self.platform, {"kept": self._authorities["kept"]})

    async def _leave(self, row: Row, issued: Issued) -> None:
        """Memberships are in certificates: whoever leaves a group gets another one, and loses the one before."""
        row.credentials = signed(self.certificate(row.user))
        await self.revoke(issued)

    async def _remove_cluster(self) -> None:
        """With a finalizer, so that the agent stays: a cluster that has gone would end its streams by itself."""
        with pytest.raises(AssertionError, match=r"waiting .*held"):
            await self.kulvert("cluster", "remove", "beta", "--timeout", "1s")

    # --- the show

    async def begin(self, stack: AsyncExitStack, row: Row) -> None:
        """Starts somebody's streams, and returns when all of them run."""
        kubectl = self.kubectl(row)
        for kind in row.kinds:
            entered = kubectl.running(*KINDS[kind].args, env=KINDS[kind].env)
            row.streams[kind] = await stack.enter_async_context(entered)
        for kind, running in row.streams.items():
            if kind == "attach":
                running.stdin.write(b"typed\n")
            assert (await running.line(40)).startswith(KINDS[kind].begins), kind

    async def end(self, row: Row) -> None:
        """Takes something away, and waits until all of somebody's streams have ended."""
        early = [kind for kind, one in row.streams.items() if one.process.returncode is not None]
        assert not early, f"{row.user}: {early} ended too early"
        if row.take is not None:
            row.ends = time.time()
            await row.take()
        patience = max(row.ends - time.time(), 0.0) + PROMISED + 5.0
        await asyncio.gather(*(self._wait(row, kind, patience) for kind in row.kinds))
        kubectl = self.kubectl(row)
        row.again = (
            await kubectl.run("get", "pods", POD),
            await kubectl.run("get", "--raw", "/api/v1/namespaces/default/pods?watch=1"),
        )

    async def _wait(self, row: Row, kind: str, patience: float) -> None:
        running = row.streams[kind]
        _, code = await asyncio.gather(drain(running.stdout), running.wait(patience))
        at = time.time()
        row.ended[kind] = Ended(at, code, (await running.stderr.read()).decode().strip())


def write_authorities(platform: Platform, authorities: dict[str, CertificateAuthority]) -> Path:
    path = platform.directory / "client-ca.pem"
    draft = path.with_suffix(".new")
    draft.write_bytes(b"".join(one.certificate_pem for one in authorities.values()))
    return draft.replace(path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def show(clusters: tuple[Cluster, Cluster], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Show]:
    await bind_admins(clusters)
    platform = Platform(tmp_path_factory.mktemp("revocation") / "platform", [])
    authorities = {name: CertificateAuthority.create(name, time.time(), 3600.0) for name in ("kept", "other")}
    platform.settings = {"tls": {"clientCa": str(write_authorities(platform, authorities))}}
    async with platform, AsyncExitStack() as stack:
        for cluster in clusters:
            await platform.start_agent(cluster)
            await create_pod(cluster, POD)
            stack.push_async_callback(delete_pod, cluster, POD)
            cluster.log_file("default", POD).write_text("begun\n")
        shown = Show(platform, clusters[0], authorities)
        await shown.kulvert("cluster", "finalizer", "add", "beta", "example.com/held")
        await shown.cast()
        await asyncio.sleep(2 * WATCH)
        began = time.monotonic()
        everybody = (*shown.rows.values(), shown.bystander)
        await asyncio.gather(*(shown.begin(stack, row) for row in everybody))
        print(f"{sum(len(row.kinds) for row in everybody)} streams began in {time.monotonic() - began:.1f} s")
        await asyncio.gather(*(shown.end(row) for row in shown.rows.values()))
        shown.audited = [event for event in platform.audit() if event["stage"] == "ResponseComplete"]
        yield shown


ROWS = (
    "an expired token", "an expired certificate", "an expired grant",
    "a revoked certificate", "a revoked user", "a removed authority", "a revoked token",
    "a grant that left the file", "a grant deleted from the store", "a grant to a group that is gone",
    "a membership that is gone", "a cluster that is being removed",
)  # fmt: skip
each = pytest.mark.parametrize("name", ROWS)


@each
async def test_its_streams_end_in_time_and_tell_what_they_can(show: Show, name: str) -> None:
    row = show.rows[name]
    assert row.ended.keys() == set(row.kinds)
    for kind, ended in row.ended.items():
        after = ended.at - row.ends
        print(f"{name}, {kind}: {after:.1f} s, exit code {ended.code}, {ended.err!r}")
        says = KINDS[kind].says.replace("{}", row.told)
        assert (ended.err, ended.code) == (says, 1 if says else 0)
        assert -0.5 <= after < AT_MOST


@each
async def test_the_audit_says_why_they_ended(show: Show, name: str) -> None:
    row = show.rows[name]
    told = [
        (event["annotations"]["kulvert.dev/stream"], event["annotations"].get("kulvert.dev/reason"))
        for event in show.audited
        if event["user"].get("username") == row.user
        and "kulvert.dev/stream" in event["annotations"]
        and event["responseStatus"]["code"] in (101, 200)
    ]
    assert sorted(told) == sorted((KINDS[kind].audited, row.reason) for kind in row.kinds)


@each
async def test_the_next_request_is_refused_and_that_of_a_watch_too(show: Show, name: str) -> None:
    row = show.rows[name]
    told = NOBODY.format("leaver") if name == "a membership that is gone" else row.reason
    message = FORBIDDEN.format(told) if name == "a membership that is gone" else row.told
    assert len(row.again) == 2
    for result in row.again:
        assert result.returncode == 1
        if row.refused is HANDSHAKE:
            assert "EOF" in result.err or "reset by peer" in result.err or "tls: " in result.err
        else:
            assert result.err == row.refused.replace("{}", message)
    print(row.again[0].err)


async def test_nobody_else_notices(show: Show) -> None:
    streams = show.bystander.streams
    assert [kind for kind, one in streams.items() if one.process.returncode is not None] == []
    for kind in ("exec", "exec-spdy", "attach"):
        streams[kind].stdin.write(b"still here\n")
        assert await streams[kind].line() == "still here"
    with show.clusters["alpha"].log_file("default", POD).open("a") as log:
        log.write("more\n")
    assert await streams["logs"].line() == "more"


async def test_every_way_and_every_stream_is_there_twice(show: Show) -> None:
    assert set(ROWS) == set(show.rows)
    assert all(len(row.kinds) > 1 for row in show.rows.values())
    for kind in KINDS:
        assert len([row for row in show.rows.values() if kind in row.kinds]) > 1, kind
