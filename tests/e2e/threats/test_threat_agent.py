"""The agent trusts no stub: what comes by a link without a checked identity never gets its token.

A real `kulvert agent` dials a scripted stub; the judge is what its API server recorded.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from auth.pki import CertificateAuthority
from tests.e2e.threats.conftest import AGENT
from tests.support.hostile_agent import Gone
from tests.support.hostile_platform import ThreatPlatform, listening, server_context
from tests.support.hostile_stub import EPOCH, UPGRADE, HostileStub, StubLink, hostile_stub, request
from tests.support.processes import Process
from tests.support.recording_apiserver import RecordingApiServer
from tunnel.errors import Reason
from tunnel.frames import DATA, END, HEAD, RESET, encode

ADA = b"impersonate-user: ada"
GROUP = b"impersonate-group: devs"
REFUSED = int(Reason.REFUSED_HEAD)
PROTECTED = int(Reason.PROTECTED_IDENTITY)
BAD_HEADS: dict[str, tuple[bytes, ...]] = {
    "nobody": (b"accept: */*",),
    "no header at all": (),
    "an empty user": (b"impersonate-user: ",),
    "an empty user with groups": (b"impersonate-user: ", GROUP),
    "groups without a user": (GROUP,),
    "two users": (ADA, b"impersonate-user: bob"),
    "the same user twice": (ADA, ADA),
    "two uids": (ADA, b"impersonate-uid: 1", b"impersonate-uid: 2"),
    "an empty group": (ADA, b"impersonate-group: "),
    "underscores": (b"impersonate_user: ada",),
    "underscores beside": (ADA, b"impersonate_group: system:masters"),
    "a header not invented yet": (ADA, b"impersonate-capabilities: all"),
    "impersonate alone": (ADA, b"impersonate: x"),
    "an extra without a key": (ADA, b"impersonate-extra-: x"),
    "an extra in another spelling": (ADA, b"impersonate-extra-%73copes: x"),
    "a user that is not UTF-8": (b"impersonate-user: \xff",),
    "a user with a control character": (b"impersonate-user: a\tb",),
    "a front proxy's user": (ADA, b"x-remote-user: admin"),
    "a front proxy's group": (ADA, b"x-remote-group: system:masters"),
    "a front proxy's user, by underscores": (ADA, b"x_remote_user: admin"),
    "a bearer token as a subprotocol": (ADA, b"sec-websocket-protocol: base64url.bearer.authorization.k8s.io.eA"),
    "a length and no body": (ADA, b"content-length: 5"),
    "two lengths": (ADA, b"content-length: 0", b"content-length: 0"),
    "a length of letters": (ADA, b"content-length: x"),
}
PROTECTED_HEADS: dict[str, tuple[bytes, ...]] = {
    "system:masters": (ADA, b"impersonate-group: system:masters"),
    "upper case": (ADA, b"impersonate-group: SYSTEM:MASTERS"),
    "fullwidth": (ADA, "impersonate-group: ｓystem:masters".encode()),
    "system:nodes": (ADA, b"impersonate-group: system:nodes"),
    "a node": (b"impersonate-user: system:node:node-1", b"impersonate-group: system:nodes"),
    "the scheduler": (b"impersonate-user: system:kube-scheduler",),
    "kubeadm's admins": (ADA, b"impersonate-group: kubeadm:cluster-admins"),
    "the agent itself": (f"impersonate-user: {AGENT}".encode(),),
    "unauthenticated": (ADA, b"impersonate-group: system:unauthenticated"),
    "a node's claim": (ADA, b"impersonate-extra-authentication.kubernetes.io%2fnode-name: node-1"),
}
LINES: dict[str, bytes] = {
    "a target that is no path": b"GET probe",
    "absolute form": b"GET https://evil.test/probe",
    "authority form": b"CONNECT evil.test:443",
    "a fragment": b"GET /probe#x",
    "a method that kube-apiserver does not serve": b"TRACE /probe",
}


@pytest.fixture
def own_ca(threat_platform: ThreatPlatform) -> CertificateAuthority:
    """The CA that the agents of this module trust: the platform's."""
    return threat_platform.platform_authority


@asynccontextmanager
async def dialled(
    platform: ThreatPlatform, ca: CertificateAuthority, recorder: RecordingApiServer, recorded_ca: CertificateAuthority
) -> AsyncIterator[tuple[HostileStub, StubLink, Process]]:
    """A stub that an agent has dialled."""
    issued = ca.issue_server(["localhost"], 1_000_000_000.0, 10**10)
    async with hostile_stub(server_context(issued, platform.directory)) as stub:
        name = f"dialled-{stub.port}"
        config = platform.recorded_config(
            name, recorder.port, recorded_ca.certificate_pem, f"https://localhost:{stub.port}", maxLinks=0
        )
        process = platform.launch_agent(name, config)
        try:
            yield stub, await stub.shared(), process
        finally:
            await platform.stop_agent(name, signal.SIGKILL)  # in order, it would wait for what this stub never ends


async def test_a_request_without_a_valid_user_gets_the_agents_token(
    threat_platform: ThreatPlatform,
    own_ca: CertificateAuthority,
    recorder: RecordingApiServer,
    recorded_ca: CertificateAuthority,
) -> None:
    """A proxy that adds its own credential to whatever reaches it."""
    before = len(recorder.requests)
    async with dialled(threat_platform, own_ca, recorder, recorded_ca) as (_, link, _process):
        cases = [(name, lines, REFUSED) for name, lines in BAD_HEADS.items()]
        cases += [(name, lines, PROTECTED) for name, lines in PROTECTED_HEADS.items()]
        for number, (name, lines, reason) in enumerate(cases, 1):
            link.say(request(number, *lines))
            frame = await link.answer(number)
            assert frame.type == RESET, name
            assert (frame.payload[0], frame.payload[1]) == (3, reason), name
            values = [line.partition(b": ")[2] for line in lines]
            assert not [value for value in values if len(value) > 5 and value in frame.payload], name
        number = len(cases) + 1
        link.say(request(number, ADA, first=b"BREW /probe"))
        assert (await link.answer(number)).payload[1] == REFUSED
        link.say(request(number + 1, ADA, epoch=EPOCH - 1), request(number + 2, ADA, epoch=EPOCH + 1))
        for stale in (number + 1, number + 2):
            assert (await link.answer(stale)).payload[1] == int(Reason.STALE_EPOCH)
        link.say(request(number + 3, b"authorization: Bearer x", mode=1))
        assert (await link.answer(number + 3)).payload[1] == int(Reason.POLICY), "its owner has not allowed it"
        assert len(recorder.requests) == before
        link.say(request(number + 4, ADA, GROUP))
        assert (await link.answer(number + 4)).type == HEAD
    (one,) = recorder.requests[before:]
    assert (one.all(b"impersonate-user"), one.all(b"impersonate-group")) == ([b"ada"], [b"devs"])


ENDING: dict[str, bytes] = {
    "another mode": request(1, ADA, mode=2),
    "pass-through, without a credential": request(1, mode=1),
    "pass-through, of an impersonation": request(1, ADA, mode=1),
    "pass-through, with two credentials": request(1, *2 * (b"authorization: Bearer x",), mode=1),
    "a mode that will never be": request(1, mode=255),
    "an authorization": request(1, ADA, b"authorization: Bearer x"),
    "a host": request(1, ADA, b"host: evil.test"),
    "connection": request(1, ADA, b"connection: impersonate-user"),
    "transfer-encoding": request(1, ADA, b"transfer-encoding: chunked"),
    "proxy-authorization": request(1, ADA, b"proxy-authorization: x"),
    "an upper-case name": request(1, b"Impersonate-User: ada"),
    "a line break in a value": request(1, b"impersonate-user: ada\r\nx: y\r\n\r\nGET /smuggled HTTP/1.1"),
    "a bare LF in a value": request(1, b"impersonate-user: ada\nx: y"),
    "an upgrade without its flag": request(1, ADA, b"upgrade: websocket"),
    "an upgrade to h2c": request(1, ADA, b"upgrade: h2c", flags=UPGRADE),
    "an upgrade that has ended": request(1, ADA, b"upgrade: websocket", flags=UPGRADE | 1),
    "DATA before HEAD": encode(DATA, 0, 1, b"GET / HTTP/1.1\r\n\r\n"),
    "END before HEAD": encode(END, 0, 1),
    "a second HEAD": request(1, ADA, flags=0, first=b"POST /probe") + request(1, ADA),
    "a target with a blank": request(1, ADA, first=b"GET /probe HTTP/1.1"),
    **{
        name: request(1, ADA, first=line)
        for name, line in LINES.items()
        if name != "a fragment" and "method" not in name
    },
}


async def test_a_malformed_head_ends_the_link(
    threat_platform: ThreatPlatform,
    own_ca: CertificateAuthority,
    recorder: RecordingApiServer,
    recorded_ca: CertificateAuthority,
) -> None:
    before = len(recorder.requests)
    names = list(ENDING)

    async def worker(share: list[str]) -> None:
        """An agent that comes back after each, with a growing back-off; hence several agents, and few cases each."""
        async with dialled(threat_platform, own_ca, recorder, recorded_ca) as (stub, link, _process):
            for at, name in enumerate(share):
                link.say(ENDING[name])
                try:
                    while True:
                        frame = await link.next()
                        assert frame.type != HEAD, name
                except Gone:
                    pass
                except TimeoutError as error:
                    raise AssertionError(f"the link lives on: {name}") from error
                if at + 1 < len(share):
                    link = await stub.shared()

    async with asyncio.TaskGroup() as group:
        for first in range(0, len(names), 3):
            group.create_task(worker(names[first : first + 3]))
    # A POST's head is legal, and so goes upstream, impersonated, before the second HEAD ends the link.
    assert {one.target for one in recorder.requests[before:]} <= {b"/probe"}
    assert not recorder.find(b"/smuggled")


async def test_a_requests_body_becomes_a_second_request(
    threat_platform: ThreatPlatform,
    own_ca: CertificateAuthority,
    recorder: RecordingApiServer,
    recorded_ca: CertificateAuthority,
) -> None:
    """Bytes past a request's own framing would be a request of the agent's own, were it known by its certificate."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    async with dialled(threat_platform, own_ca, recorder, recorded_ca) as (_, link, _process):
        length = (ADA, b"content-length: 2")
        link.say(request(1, *length, flags=0, first=b"POST /longer"), encode(DATA, 1, 1, b"{}" + smuggled))
        assert (await link.answer(1)).type == RESET
        link.say(
            request(2, *length, flags=0, first=b"POST /longer"), encode(DATA, 0, 2, b"{}"), encode(DATA, 1, 2, smuggled)
        )
        assert (await link.answer(2)).type in (RESET, HEAD)
        link.say(request(3, ADA, flags=0, first=b"POST /chunks"), encode(DATA, 1, 3, b"0\r\n\r\n" + smuggled))
        assert (await link.answer(3)).type == HEAD
    assert not recorder.find(b"/smuggled")
    assert recorder.find(b"/chunks")[-1].body == b"0\r\n\r\n" + smuggled


async def test_an_agent_that_listens(
    threat_platform: ThreatPlatform,
    own_ca: CertificateAuthority,
    recorder: RecordingApiServer,
    recorded_ca: CertificateAuthority,
) -> None:
    """Nobody opens a port into the cluster, and the token is not in the process's arguments or environment."""
    async with dialled(threat_platform, own_ca, recorder, recorded_ca) as (_, _link, process):
        assert listening(process.pid) == []
        told = Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
    assert b"kvt_" not in told
    assert b"planted" not in told
