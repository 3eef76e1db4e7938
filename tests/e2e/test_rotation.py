"""Everything that signs or is signed is replaced while users are at work: not one GET fails, and no agent leaves."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yaml

from auth.pki import CertificateAuthority
from gateway.state import State
from tests.e2e.conftest import _bind as bind_admins
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.commands import kulvert
from tests.support.load import Asking, User, under_load
from tests.support.loadclient import Client
from tests.support.platform import Platform
from tests.support.skew import due_soon
from tests.support.tlsof import tls_by, tls_of

PATHS = ["/version", "/api/v1/namespaces/default"]
DAY = 86_400.0


class Bearing:
    """A user with a bearer token, who asks again and again; `refused` is how often that was answered with 401."""

    def __init__(self, url: str, trusted: bytes, token: str) -> None:
        self._url = url
        self._tls = ssl.create_default_context(cadata=trusted.decode())
        self._headers = {"Authorization": f"Bearer {token}"}
        self._stopped = False
        self.statuses: list[int] = []

    async def run(self) -> None:
        async with aiohttp.ClientSession(headers=self._headers) as session:
            while not self._stopped:
                async with session.get(f"{self._url}/version", ssl=self._tls) as answer:
                    await answer.read()
                self.statuses.append(answer.status)
                await asyncio.sleep(0.02)

    def stop(self) -> None:
        self._stopped = True

    async def says(self, status: int, patience: float = 5.0) -> None:
        """Wait until the last answer was this one."""
        before = len(self.statuses)

        async def said() -> bool:
            return len(self.statuses) > before + 1 and self.statuses[-1] == status

        await until(said, f"a {status}", patience)


def authority(directory: Path, name: str) -> CertificateAuthority:
    return CertificateAuthority.load_or_create(directory / f"{name}.pem", name, time.time())


def readers(platform: Platform, tls: ssl.SSLContext) -> list[Asking]:
    """Some keep their connections, one has a new one for each request."""
    url = f"{platform.url}/clusters/alpha"
    kept = [Asking(Client(url, tls), PATHS) for _ in range(2)]
    return [*kept, Asking(Client(url, tls, fresh=True), PATHS)]


@asynccontextmanager
async def nobody_notices(users: Sequence[User], settle: float = 1.0) -> AsyncIterator[None]:
    """Load around the block, and for a while behind it: no GET of an `Asking` fails, nor is one sent twice."""
    async with under_load(users):
        await asyncio.sleep(settle)
        yield
        await asyncio.sleep(settle)
    asking = [one for one in users if isinstance(one, Asking)]
    assert [one.why for user in asking for one in user.failed()] == []
    assert [user.client.retries.all for user in asking] == [0] * len(asking)
    print(f"{sum(len(user.outcomes) for user in asking)} GETs, none failed")


async def token_of(platform: Platform, user: str) -> str:
    """As `kulvert kubeconfig` signs it now."""
    more = ("--user", user, "--group", "kulvert:admins", "--token", "--ttl", "1h", "--server", platform.url)
    shown = (await kulvert(platform.state, "kubeconfig", "alpha", *more, "-o", "-")).check().out
    return str(yaml.safe_load(shown)["users"][0]["user"]["token"])


def put(path: Path, content: bytes) -> None:
    """As a Secret's files change: at once, and another file."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(content)
    draft.chmod(0o600)
    draft.replace(path)


# --- the server's certificate


async def test_the_servers_certificate_changes_its_authority_which_was_announced_before(
    clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    await bind_admins(clusters)
    old, new = authority(tmp_path, "old-root"), authority(tmp_path, "new-root")
    files = {name: tmp_path / f"server.{name}" for name in ("crt", "key", "announced")}

    def show(signer: CertificateAuthority) -> None:
        made = signer.issue_server(["localhost", "127.0.0.1"], time.time(), DAY)
        put(files["crt"], made.certificate + signer.certificate_pem)
        put(files["key"], made.key)

    show(old)
    put(files["announced"], old.certificate_pem)
    put(tmp_path / "agents.crt", old.certificate_pem)  # all that the agent's owner has configured
    tls = {"certificate": str(files["crt"]), "key": str(files["key"]), "announcedCa": str(files["announced"])}
    async with Platform(tmp_path / "platform", settings={"tls": tls}) as served:
        await served.start_agent(clusters[0], caFile=str(tmp_path / "agents.crt"))
        both, issued = old.certificate_pem + new.certificate_pem, served.certificate("admin", ["kulvert:admins"])
        users = readers(served, tls_by(tmp_path / "admin.pem", issued.certificate + issued.key, both))
        async with nobody_notices(users):
            put(files["announced"], both)
            await until(_said(served, "the server announced its authorities"), "the agent to hear of it", 10.0)
            await asyncio.sleep(0.5)
            show(new)
            await until(_shown_by(served.port, new), "users to see the new certificate", 10.0)
            await until(_shown_by(served.agents_port, new), "agents to see it", 10.0)
        await served.stop_agent("alpha")
        await served.restart_agent("alpha")  # from its own state, with a caFile that knows the old one alone
        assert (await kulvert(served.state, "cluster", "list")).check().out


def _said(served: Platform, words: str):  # type: ignore[no-untyped-def]
    async def said() -> bool:
        return words in served.agent("alpha").log.read_text()

    return said


def _shown_by(port: int, signer: CertificateAuthority):  # type: ignore[no-untyped-def]
    """Whether a new connection gets a certificate of this authority."""

    async def shown() -> bool:
        tls = ssl.create_default_context(cadata=signer.certificate_pem.decode())
        try:
            _, writer = await asyncio.open_connection("localhost", port, ssl=tls)
        except ssl.SSLError:
            return False
        writer.transport.abort()
        return True

    return shown


# --- the keys that sign tokens


async def test_the_signing_key_is_rotated_and_then_taken_back(own_platform: Platform, cluster_a: Cluster) -> None:
    await own_platform.start_agent(cluster_a)
    url, state = f"{own_platform.url}/clusters/alpha", own_platform.state
    before = Bearing(url, own_platform.ca, await token_of(own_platform, "ben"))
    async with nobody_notices([*readers(own_platform, tls_of(own_platform)), before]):
        (await kulvert(state, "signing-key", "rotate", "--lead", "1s")).check()
        await asyncio.sleep(2.5)
        after = Bearing(url, own_platform.ca, await token_of(own_platform, "ben"))
        async with under_load([after]):
            await after.says(200)
            assert set(before.statuses) == set(after.statuses) == {200}
            (await kulvert(state, "signing-key", "rotate", "--compromised")).check()
            await before.says(401)
            await after.says(401)
    assert set(before.statuses) == {200, 401}


# --- agents' certificates


async def test_an_agents_certificate_is_renewed_while_it_carries_everything(
    own_platform: Platform, cluster_a: Cluster
) -> None:
    await own_platform.start_agent(cluster_a)
    await own_platform.stop_agent("alpha")
    due = await due_soon(own_platform, cluster_a)
    await own_platform.restart_agent("alpha")
    async with nobody_notices(readers(own_platform, tls_of(own_platform))):
        await until(_said(own_platform, "certificate renewed"), "the renewal", 40.0)
    pem = own_platform.directory / "alpha.agent" / "agent.pem"
    shown = (await kulvert(own_platform.state, "cluster", "certificates", "alpha")).check().out
    assert due in shown
    assert "BEGIN CERTIFICATE" in pem.read_text()


# --- the authority of users' certificates, where it is the platform's owner's


async def test_an_authority_of_users_is_appended_used_and_taken_away(
    clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    await bind_admins(clusters)
    old, new, bundle = authority(tmp_path, "old-users"), authority(tmp_path, "new-users"), tmp_path / "users.crt"
    put(bundle, old.certificate_pem)
    async with Platform(tmp_path / "platform", settings={"tls": {"clientCa": str(bundle)}}) as served:
        await served.start_agent(clusters[0])

        def of(signer: CertificateAuthority, name: str) -> list[Asking]:
            issued = signer.issue_client("admin", ["kulvert:admins"], time.time(), DAY)
            return readers(served, tls_by(tmp_path / f"{name}.pem", issued.certificate + issued.key, served.ca))

        leaving = of(old, "old")
        async with nobody_notices(leaving):
            put(bundle, old.certificate_pem + new.certificate_pem)
            await asyncio.sleep(2.5)
            async with nobody_notices(of(new, "new")):
                pass
        staying = of(new, "new")
        async with nobody_notices(staying):
            put(bundle, new.certificate_pem)
            await asyncio.sleep(2.5)
        late = of(old, "old")
        async with under_load(late):
            await asyncio.sleep(0.5)
        assert all(one.why for user in late for one in user.outcomes)


# --- the server's own authorities


async def ids(served: Platform, kind: str) -> list[str]:
    """The one that signs first."""
    shown = (await kulvert(served.state, "authority", "list")).check().out
    return [line.split()[1] for line in shown.splitlines() if line.startswith(kind)]


async def step(served: Platform, *args: str) -> None:
    (await kulvert(served.state, "authority", *args)).check()
    await asyncio.sleep(2.5)


async def test_the_platforms_own_authority_is_replaced(own_platform: Platform, cluster_a: Cluster) -> None:
    """Of users, and of the server's certificate. Users trust both from the first step on, as agents are told to."""
    served, trusted = own_platform, own_platform.directory / "trusted.crt"
    trusted.write_bytes(served.ca)  # all that the agent's owner has configured
    await served.start_agent(cluster_a, caFile=str(trusted))
    await step(served, "add", "users")
    assert served.ca.count(b"BEGIN CERTIFICATE") == 2
    await until(_said(served, "the server announced its authorities"), "the agent to hear of it", 10.0)
    old, new = await ids(served, "users")
    before = tls_of(served)
    async with nobody_notices(readers(served, before)):
        await step(served, "use", "users", new)
        async with nobody_notices(readers(served, tls_of(served))):
            await asyncio.sleep(0.5)
    await served.stop_agent("alpha")
    await served.restart_agent("alpha")  # its caFile knows the old one alone, the server shows one of the new
    async with nobody_notices(readers(served, tls_of(served))):
        await step(served, "remove", "users", old)
        late = readers(served, before)
        async with under_load(late):
            await asyncio.sleep(0.5)
    assert all(one.why for user in late for one in user.outcomes)
    assert await ids(served, "users") == [new]


async def test_the_agents_authority_is_replaced(own_platform: Platform, cluster_a: Cluster) -> None:
    """An agent whose certificate is renewed before the last step comes in after it; another one does not."""
    served = own_platform
    await served.start_agent(cluster_a)
    await served.further_agent("alpha", "alpha-2")
    signer = State(served.state).agents_authority(time.time())
    async with nobody_notices(readers(served, tls_of(served))):
        await step(served, "add", "agents")
        old, new = await ids(served, "agents")
        await step(served, "use", "agents", new)
        await served.stop_agent("alpha")
        await due_soon(served, cluster_a, signer)
        await served.restart_agent("alpha")  # by a certificate of the old one
        await until(_said(served, "certificate renewed"), "the renewal", 40.0)
        await step(served, "remove", "agents", old)
        await served.stop_agent("alpha")
        await served.restart_agent("alpha")
    await served.stop_agent("alpha-2")
    config = served.directory / "alpha-2.agent.yaml"
    document = yaml.safe_load(config.read_text())
    del document["joinTokenFile"]
    config.write_text(yaml.safe_dump(document))
    late = served.run_agent("alpha-2", config)

    async def refused() -> bool:
        return "not signed by this platform's agents' authority" in late.log.read_text()

    await until(refused, "an agent of the old authority to be refused", 15.0)
