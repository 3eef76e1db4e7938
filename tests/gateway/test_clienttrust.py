"""Whose client certificates count, while files change: for new handshakes, and for who is connected already."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from auth.authenticator import AuthenticationFailed
from auth.authorityfile import id_of
from auth.chain import AuthenticatorChain
from auth.identity import Credentials
from auth.pki import CertificateAuthority
from auth.revocations import Revocations
from gateway.certificates import Certificates
from gateway.clienttrust import ClientTrust, TrustFiles
from gateway.config import ConfigError, TlsConfig
from gateway.issuing.settings import FrontProxyConfig
from gateway.state import State
from tests.auth.certificates import crl, loaded, shown
from tests.gateway.gate import gate

NOW = time.time()


class Bed:
    """A state directory, two users' authorities in a bundle, and the trust made of them."""

    def __init__(self, at: Path, **more: Any) -> None:
        self.state = State(at / "state")
        self.bundle, self.crl = at / "users.crt", at / "users.crl"
        self.one, self.two = (CertificateAuthority.create(name, NOW) for name in ("one", "two"))
        self.front = CertificateAuthority.create("front", NOW)
        self.front_file = at / "front.crt"
        self.front_file.write_bytes(self.front.certificate_pem)
        self.platform = self.state.authority(NOW)
        self.put(self.one)
        self.at = at
        self.more = more

    def put(self, *authorities: CertificateAuthority) -> None:
        self.bundle.write_bytes(b"".join(one.certificate_pem for one in authorities))

    def trust(self, **files: Any) -> ClientTrust:
        return ClientTrust(TrustFiles(self.bundle, **files), self.state.users, **self.more)

    def client(self, issuer: CertificateAuthority, certificates: Certificates, name: str = "jane") -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.platform.certificate_pem.decode())
        issued = issuer.issue_client(name, [], NOW, 600)
        pair = self.at / "pair.pem"
        pair.write_bytes(issued.certificate + issued.key)
        context.load_cert_chain(pair)
        return context


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def shaken(client: ssl.SSLContext, server: ssl.SSLContext, name: str | None = "gw", session: Any = None) -> Any:
    """A handshake; both ends, or the server's complaint."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (here, there):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    there.write(b"x")
    here.read(1)
    return here, there


def certificate_seen(client: ssl.SSLContext, server: ssl.SSLContext, name: str | None = "gw") -> bytes | None:
    _, there = shaken(client, server, name)
    seen: bytes | None = there.getpeercert(binary_form=True)
    return seen


@pytest.mark.parametrize("name", ["gw", None])
def test_an_authority_is_added_and_removed_while_the_listener_holds_its_context(bed: Bed, name: str | None) -> None:
    trust = bed.trust()
    made = Certificates(TlsConfig(), ("gw",), bed.state, NOW, trust)
    held = made.users
    one, two = bed.client(bed.one, made), bed.client(bed.two, made)
    for context in (one, two):
        context.check_hostname = name is not None
    assert certificate_seen(one, held, name)
    with pytest.raises(ssl.SSLError):
        shaken(two, held, name)
    bed.put(bed.one, bed.two)
    assert trust.take(trust.look())
    assert made.poll(NOW)
    assert certificate_seen(one, held, name)
    assert certificate_seen(two, held, name)
    bed.put(bed.two)
    assert trust.take(trust.look())
    assert made.poll(NOW)
    assert not made.poll(NOW)
    with pytest.raises(ssl.SSLError):
        shaken(one, held, name)
    assert certificate_seen(two, held, name)
    assert certificate_seen(bed.client(bed.platform, made), held) is not None
    assert made.users is held


def test_who_comes_without_a_certificate_still_may(bed: Bed) -> None:
    made = Certificates(TlsConfig(), ("gw",), bed.state, NOW, bed.trust())
    stranger = ssl.create_default_context(cadata=bed.platform.certificate_pem.decode())
    assert certificate_seen(stranger, made.users) is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_that_outlives_its_authority_is_nobody(bed: Bed, version: ssl.TLSVersion) -> None:
    """TLS verifies nothing when a session is resumed: the authenticator has to."""
    trust = bed.trust()
    made = Certificates(TlsConfig(), ("gw",), bed.state, NOW, trust)
    client = bed.client(bed.one, made)
    client.maximum_version = version
    here, _ = shaken(client, made.users)
    bed.put(bed.two)
    trust.take(trust.look())
    made.poll(NOW)
    again, there = shaken(client, made.users, session=here.session)
    assert again.session_reused
    assert trust.authenticate(Credentials(None, there.getpeercert(binary_form=True)), NOW) is None


def test_a_removed_authoritys_certificate_is_nobodys_at_the_next_look(bed: Bed) -> None:
    trust = bed.trust()
    chain = AuthenticatorChain([trust])
    jane = shown(bed.one.issue_client("jane", [], NOW, 600))
    assert chain.authenticate(jane, NOW).user == "jane"
    bed.put(bed.two)
    assert trust.take(trust.look())
    chain.clear()
    with pytest.raises(AuthenticationFailed):
        chain.authenticate(jane, NOW)


class _Tls:
    """What a transport says of a handshake that is over."""

    def __init__(self, certificate: bytes | None) -> None:
        self._certificate = certificate

    def getpeercert(self, binary_form: bool) -> bytes | None:
        return self._certificate


WATCH = b"GET /clusters/a/api/v1/pods?watch=1 HTTP/1.1\r\nHost: gateway\r\n\r\n"


async def test_a_live_stream_ends_within_thirty_seconds_of_its_authoritys_removal(bed: Bed) -> None:
    trust = bed.trust()
    jane = shown(bed.one.issue_client("carol", ["devs"], NOW, 600))
    async with gate() as g:
        g.time[0] = NOW
        g.access._authenticator = AuthenticatorChain([trust], ttl=20.0)  # as a server has it
        wire = g.connect(ssl_object=_Tls(jane.certificate))
        wire.send(WATCH)
        exchange = g.clusters.last
        exchange.begin(200)
        for _ in range(6):
            g.pass_time(5.0)
        assert exchange.cancelled is None
        bed.put(bed.two)
        trust.take(trust.look())
        for _ in range(6):
            g.pass_time(5.0)
        assert exchange.cancelled is not None
        wire.lose()


def test_a_list_of_revoked_certificates_counts_when_it_changes(bed: Bed) -> None:
    good, bad = (bed.one.issue_client("jane", [], NOW, 600) for _ in range(2))
    bed.crl.write_bytes(crl(bed.one, made=NOW, until=NOW + 100).public_bytes(Encoding.PEM))
    trust = bed.trust(client_crl=bed.crl)
    assert trust.authenticate(shown(bad), NOW) is not None
    listed = crl(bed.one, [loaded(bad).serial_number], made=NOW + 1, until=NOW + 200)
    bed.crl.write_bytes(listed.public_bytes(Encoding.DER))
    assert trust.take(trust.look())
    with pytest.raises(AuthenticationFailed, match="revoked"):
        trust.authenticate(shown(bad), NOW)
    assert trust.authenticate(shown(good), NOW) is not None
    assert trust.problem(NOW + 199) is None
    assert "lapsed" in str(trust.problem(NOW + 200))
    with pytest.raises(AuthenticationFailed, match="lapsed"):
        trust.authenticate(shown(good), NOW + 200)
    assert trust.authenticate(shown(bed.platform.issue_client("ada", [], NOW, 600)), NOW + 200) is not None


def test_files_that_cannot_be_used_change_nothing(bed: Bed) -> None:
    bed.crl.write_bytes(crl(bed.one, made=NOW, until=NOW + 100).public_bytes(Encoding.PEM))
    trust = bed.trust(client_crl=bed.crl)
    jane = shown(bed.one.issue_client("jane", [], NOW, 600))
    issued = bed.one.issue_client("jane", [], NOW, 600)
    for file, content in ((bed.bundle, b"nonsense"), (bed.bundle, issued.certificate), (bed.crl, b"nonsense")):
        before = file.read_bytes()
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=file.name):
            trust.look()
        assert trust.authenticate(jane, NOW) is not None
        file.write_bytes(before)
        trust.take(trust.look())
    bed.bundle.unlink()
    with pytest.raises(OSError, match=bed.bundle.name):
        trust.look()
    with pytest.raises(ConfigError, match="cannot be read"):
        bed.trust()


def test_a_front_proxys_authority_is_trusted_for_the_handshake_and_for_nobody_else(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.more["front"] = FrontProxyConfig(bed.front_file, ("aggregator",))
    trust = bed.trust()
    made = Certificates(TlsConfig(), ("gw",), bed.state, NOW, trust)
    der = certificate_seen(bed.client(bed.front, made, "aggregator"), made.users)
    assert trust.authenticate(Credentials(None, der), NOW) is None
    with pytest.raises(AuthenticationFailed, match="nobody itself"):
        trust.front_proxy.authenticate(Credentials(None, der, ()), NOW)
    identity = trust.front_proxy.authenticate(Credentials(None, der, ((b"x-remote-user", b"jane"),)), NOW)
    assert identity is not None
    assert identity.user == "jane"
    jane = certificate_seen(bed.client(bed.front, made, "jane"), made.users)
    with pytest.raises(AuthenticationFailed, match="no authenticator"):
        AuthenticatorChain([trust.front_proxy, trust]).authenticate(Credentials(None, jane), NOW)


def test_a_front_proxy_is_no_user_though_its_authority_is_the_users(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.more["front"] = FrontProxyConfig(bed.bundle, ("aggregator",))
    trust = bed.trust()
    proxy = shown(bed.one.issue_client("aggregator", ["devs"], NOW, 600))
    assert trust.authenticate(proxy, NOW) is None
    assert trust.authenticate(shown(bed.one.issue_client("jane", [], NOW, 600)), NOW) is not None


@pytest.mark.parametrize("names", [(), ("",)])
def test_a_front_proxys_authority_without_names_stops_the_start(tmp_path: Path, names: tuple[str, ...]) -> None:
    bed = Bed(tmp_path)
    bed.more["front"] = FrontProxyConfig(bed.front_file, names)
    with pytest.raises(ConfigError, match="common names"):
        bed.trust()


def test_without_front_proxies_there_are_none(bed: Bed) -> None:
    trust = bed.trust()
    assert trust.front() is None
    assert trust.front_proxy.authenticate(Credentials(None, b"x", ((b"x-remote-user", b"root"),)), NOW) is None


def test_the_platforms_own_authority_is_replaced_while_the_server_runs(bed: Bed) -> None:
    """In three steps: nobody who was let in before is left outside, until the last one says so."""
    trust = bed.trust()
    made = Certificates(TlsConfig(), ("gw",), bed.state, NOW, trust)
    users = bed.state.users

    def step() -> None:
        assert trust.take(trust.look())
        assert made.poll(NOW)

    before, leaving = bed.platform, bed.client(bed.platform, made)
    users.add(NOW)
    step()
    assert trust.platform.certificate == before.certificate
    both = bed.state.server_ca.read_bytes()
    assert both == made.trust.encode() == (bed.state.directory / "ca.crt").read_bytes()
    assert both.count(b"BEGIN CERTIFICATE") == 2
    users.use(id_of(trust.platform.others[0]), NOW)
    step()
    after = trust.platform
    assert after.certificate != before.certificate
    leaving.load_verify_locations(cadata=both.decode())
    assert certificate_seen(leaving, made.users), "a certificate of the old one, and a server with one of the new"
    new_only = ssl.create_default_context(cadata=after.certificate_pem.decode())
    issued = after.issue_client("jane", [], NOW, 600)
    (bed.at / "new.pem").write_bytes(issued.certificate + issued.key)
    new_only.load_cert_chain(bed.at / "new.pem")
    assert certificate_seen(new_only, made.users)
    users.remove(id_of(before.certificate))
    step()
    assert made.trust.encode() == after.certificate_pem
    with pytest.raises(ssl.SSLError):
        shaken(leaving, made.users)
    assert certificate_seen(new_only, made.users)


def test_what_the_platforms_authority_before_has_signed_is_dated_as_it_was(bed: Bed) -> None:
    """Kulvert dates back, whichever of its authorities signs: a certificate of after a revocation is not revoked."""
    bed.more["revoked"] = lambda: Revocations(users={"jane": NOW})
    before, trust = bed.platform, bed.trust()
    bed.state.users.use(id_of(bed.state.users.add(NOW).certificate), NOW)
    trust.take(trust.look())
    assert trust.platform.certificate != before.certificate
    later, earlier = (shown(before.issue_client("jane", [], issued, 600)) for issued in (NOW + 2, NOW - 1))
    assert trust.authenticate(later, NOW + 3) is not None
    with pytest.raises(AuthenticationFailed, match="revoked"):
        trust.authenticate(earlier, NOW + 3)


def test_the_agents_door_knows_the_next_authority_of_agents(bed: Bed) -> None:
    bed.state.agents_authority(NOW)
    made = Certificates(TlsConfig(), ("gw",), bed.state, NOW, bed.trust())
    held, new = made.agents, bed.state.agents.add(NOW)
    agent = bed.client(new, made)
    with pytest.raises(ssl.SSLError):
        shaken(agent, held)
    made.poll(NOW)
    assert certificate_seen(agent, held)
    assert made.agents is held
