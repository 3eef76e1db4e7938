"""The agents' door: no user's credential opens it, and no agent's that is expired, revoked, stolen or another's."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from agent.identityfile import AgentIdentity, new_key
from auth import agentpki
from auth.jointoken import JoinToken
from auth.pki import CertificateAuthority, Issued
from gateway.membership.stores import Stores
from tests.e2e.threats.test_threat_credentials import PUBLIC, Way, leaked
from tests.e2e.threats.test_threat_credentials import WAYS as EVERY_WAY
from tests.support.credentials_bad import bad
from tests.support.credentials_zoo import DAY, Shown, Zoo
from tests.support.hostile_agent import Gone, HostileAgent, enrolled
from tests.support.hostile_client import connected
from tests.support.hostile_platform import ThreatPlatform, client_context
from tunnel.frames import CONTROL, encode
from tunnel.handshake import Refused, Welcome
from tunnel.messages import parse_message

LINK = "/kulvert/v1/link"
WAYS = (
    *EVERY_WAY,
    *(Way(path, path) for path in sorted(PUBLIC)),
)
EACH = 4


async def test_no_users_credential_good_or_bad_opens_anything(
    threat_platform: ThreatPlatform, zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each credential on the link and on some paths in turn, so that each path is tried by several."""
    cases = list((bad(zoo) | {f"good: {name}": one for name, one in zoo.good().items()}).items())
    queue = [(name, shown, way) for at, (name, shown) in enumerate(cases) for way in _some(at)]
    tried = {way for _, _, way in queue}
    count, wrong = len(queue), list[str]()

    async def work() -> None:
        while queue:
            name, shown, way = queue.pop()
            if problem := await _asked(threat_platform, shown, way):
                wrong.append(f"{name} / {way.name}: {problem}")

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(work())
    assert not wrong, "\n".join(wrong)
    assert tried == set(WAYS)
    assert leaked(threat_platform, [shown for _, shown in cases]) == []
    with capsys.disabled():
        print(f"\n{count} cases at the agents' door: {len(cases)} credentials, {len(WAYS)} paths")


def _some(at: int) -> list[Way]:
    link = next(way for way in WAYS if way.target == LINK)
    return [link, *dict.fromkeys(WAYS[(at * EACH + more) % len(WAYS)] for more in range(EACH))]


async def _asked(platform: ThreatPlatform, shown: Shown, way: Way) -> str:
    """What is wrong with the answer, or nothing."""
    context = client_context(platform.ca, shown.pair, platform.directory)
    try:
        async with connected(platform.agents_port, context) as client:
            await client.say(way.bytes(shown.lines))
            said = await client.rest()
    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
        return "" if shown.pair is not None else "no answer"
    if said and said.split(b" ")[1] not in (b"400", b"404", b"426", b"431"):
        return repr(said[:200])
    return "" if said.count(b"HTTP/1.1 ") <= 1 and b'"items"' not in said else repr(said[:200])


# --- agents' own credentials


@dataclass
class Door:
    """Where hellos are said."""

    platform: ThreatPlatform

    async def refused(
        self, name: str, uid: str, identity: AgentIdentity, *, told: str = "", replayed: bool = False
    ) -> str:
        """Say a hello. Gives the reason of the refusal, "gone" where there is none, and "" for a welcome."""
        link = await self._dial()
        try:
            challenge = await link.challenge()
            if replayed:
                other = await self._dial()
                challenge = await other.challenge()
                await other.close()
            hello = link.hello(challenge, identity, name, uid, told=told)
            link.say(encode(CONTROL, payload=hello.encode()))
            Welcome.parse(parse_message((await link.next()).payload, 65536), own=False)
        except Refused as refused:
            return refused.reason
        except Gone:
            return "gone"
        finally:
            await link.close()
        return ""

    async def enrols(self, token: str, name: str, uid: str) -> str:
        """Ask for a certificate. Gives as `refused`."""
        try:
            await enrolled(self.platform.agents_port, self.platform.context(), token, name, uid)
        except Refused as refused:
            return refused.reason
        except Gone:
            return "gone"
        return ""

    async def _dial(self) -> HostileAgent:
        return await HostileAgent.dial(self.platform.agents_port, self.platform.context())


@pytest.fixture
def door(threat_platform: ThreatPlatform) -> Door:
    return Door(threat_platform)


def _identity(issued: Issued) -> AgentIdentity:
    leaf = x509.load_pem_x509_certificate(issued.certificate)
    key = load_pem_private_key(issued.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    times = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    return AgentIdentity(key, issued.certificate.decode(), leaf.public_bytes(Encoding.DER), *times)


async def test_no_certificate_but_the_agents_own_attaches(door: Door, zoo: Zoo) -> None:
    (name, token), (other, other_token) = door.platform.rogue(), door.platform.rogue()
    tls, port, uid = door.platform.context(), door.platform.agents_port, f"uid-{name}"
    good = await enrolled(port, tls, token, name, uid)
    others = await enrolled(port, tls, other_token, other, f"uid-{other}")
    impostor = CertificateAuthority.create(agentpki.AUTHORITY, time.time())
    forged = agentpki.issue(impostor, good.key.public_key(), name, uid, time.time(), DAY).pem
    wrong = {
        "a user's certificate": _identity(zoo.platform.issue_client(f"kulvert:agent:{name}", [], zoo.now, DAY)),
        "a server's certificate": _identity(zoo.platform.issue_server(["localhost"], zoo.now, DAY)),
        "an expired one": _identity(zoo.agent_certificate(name, uid, began=-2 * DAY)),
        "one that is not valid yet": _identity(zoo.agent_certificate(name, uid, began=DAY)),
        "one that the server has no record of": _identity(zoo.agent_certificate(name, uid)),
        "one of an authority of the same name": replace(good, der=_der(forged), chain=forged),
        "a stolen certificate without its key": replace(good, key=new_key()),
        "another cluster's": others,
        "no certificate": replace(good, der=b""),
        "junk": replace(good, der=b"\x30\x82" + os.urandom(200)),
    }
    for what, identity in wrong.items():
        assert await door.refused(name, uid, identity), what
    assert await door.refused(name, uid, good, told=other)
    assert await door.refused(name, f"uid-{other}", good)
    assert await door.refused(name, uid, good, replayed=True)
    assert await door.refused(name, uid, good) == "", "the counterpart"
    await _revoked(door, good)
    await _eventually(lambda: door.refused(name, uid, good), "a revoked certificate to be refused")


async def test_no_join_token_but_the_right_one_gets_a_certificate(door: Door) -> None:
    (name, token), (other, _) = door.platform.rogue(), door.platform.rogue()
    token_id, _, secret = token.partition(".")
    expired, uid = JoinToken.create(os.urandom), f"uid-{name}"
    _with_stores(
        door,
        lambda stores: stores.tokens.add(
            expired.stored(name, time.time() + 1.0, created=time.time() - 60, accept=True)
        ),
    )
    await asyncio.sleep(2.5)
    wrong = {
        "a wrong secret": f"{token_id}.{secret[:-4]}{'AAAA' if secret[-4:] != 'AAAA' else 'BBBB'}",
        "an unknown id": f"{JoinToken.create(os.urandom).text().partition('.')[0]}.{secret}",
        "one of nobody's": JoinToken.create(os.urandom).text(),
        "an expired one": expired.text(),
    }
    for what, text in wrong.items():
        assert await door.enrols(text, name, uid), what
    assert await door.enrols(token, other, f"uid-{other}"), "another cluster's"
    assert await door.enrols(token, "alpha", uid), "a cluster that is there"
    assert await door.enrols(token, name, uid) == "", "the counterpart"


def _der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


async def _revoked(door: Door, identity: AgentIdentity) -> None:
    serial = f"{x509.load_der_x509_certificate(identity.der).serial_number:x}"
    _with_stores(door, lambda stores: stores.certificates.revoke(serial, time.time()))


def _with_stores(door: Door, work: Callable[[Stores], object]) -> None:
    stores = Stores.open(door.platform.state / "clusters.db")
    try:
        work(stores)
    finally:
        stores.close()


async def _eventually(question: Callable[[], Awaitable[str]], what: str, timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while not await question():
        assert time.monotonic() < deadline, f"waited for {what}"
        await asyncio.sleep(0.1)
