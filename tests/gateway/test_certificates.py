"""The server's certificate while it runs: renewed, replaced, and what clients must trust for it."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509

from auth.pki import CertificateAuthority, Issued
from gateway.certificates import Certificates
from gateway.config import TlsConfig
from gateway.state import State

NOW = time.time()
DAY = 86_400.0


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


class Configured:
    """A certificate that somebody else brings."""

    def __init__(self, at: Path) -> None:
        self.authority = CertificateAuthority.create("corporate", NOW)
        self.tls = TlsConfig(at / "tls.crt", at / "tls.key")
        self.chain, self.key = at / "tls.crt", at / "tls.key"
        self.put(self.issue())

    def issue(self) -> Issued:
        return self.authority.issue_server(["gw"], NOW, 90 * DAY)

    def put(self, issued: Issued, root: bool = True) -> None:
        self.chain.write_bytes(issued.certificate + (self.authority.certificate_pem if root else b""))
        self.key.write_bytes(issued.key)


def shown(context: ssl.SSLContext, trusted: bytes, name: str = "gw") -> int:
    """The serial number that a handshake shows; the client trusts nothing else than `trusted`."""
    client = ssl.create_default_context(cadata=trusted.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=name)
    there = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (here, there):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    der = here.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def test_the_servers_own_is_renewed_at_two_thirds_of_its_life(state: State) -> None:
    start = NOW - 265 * DAY
    made = Certificates(TlsConfig(), ("gw",), state, start)
    trusted = state.server_ca.read_bytes()
    assert trusted == state.authority(NOW).certificate_pem
    first = shown(made.users, trusted)
    assert shown(made.agents, trusted) == first
    assert not made.poll(start + 264 * DAY)
    assert made.poll(start + 265 * DAY)
    renewed = shown(made.users, trusted)
    assert renewed != first
    assert shown(made.agents, trusted) == renewed
    assert not made.poll(start + 266 * DAY)


@pytest.mark.parametrize("ahead", [0, 3600], ids=["right", "ahead"])
def test_the_servers_own_is_made_anew_when_the_clock_goes_back(state: State, ahead: int) -> None:
    """Whether or not the authority was made by that clock, too."""
    state.authority(NOW + ahead)
    made = Certificates(TlsConfig(), ("gw",), state, NOW + 3600)
    trusted = state.server_ca.read_bytes()
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        shown(made.users, trusted)
    assert not made.poll(NOW + 3570), "as clocks are set a little now and then"
    assert made.poll(NOW)
    assert shown(made.users, trusted) == shown(made.agents, trusted)
    assert not made.poll(NOW + 1)


def test_configured_files_are_loaded_when_they_change_and_only_if_they_fit(state: State, tmp_path: Path) -> None:
    configured = Configured(tmp_path)
    made = Certificates(configured.tls, ("ignored",), state, NOW)
    trusted = state.server_ca.read_bytes()
    assert trusted == configured.authority.certificate_pem
    first = shown(made.users, trusted)
    assert not made.poll(NOW)
    renewed = configured.issue()
    configured.chain.write_bytes(renewed.certificate)  # its key is still on its way
    with pytest.raises(ssl.SSLError):
        made.poll(NOW)
    assert shown(made.users, trusted) == first
    assert shown(made.agents, trusted) == first
    configured.put(renewed)
    assert made.poll(NOW)
    assert shown(made.users, trusted) == shown(made.agents, trusted) != first


def test_a_chain_without_its_root_is_left_to_the_clients_systems(state: State, tmp_path: Path) -> None:
    configured = Configured(tmp_path)
    configured.put(configured.issue(), root=False)
    Certificates(configured.tls, ("ignored",), state, NOW)
    assert state.server_ca.read_bytes() == b""
    assert state.trusted(NOW) == b""
    assert (state.directory / "ca.crt").read_bytes() == state.authority(NOW).certificate_pem


def test_before_the_first_start_the_platforms_ca_is_expected(state: State) -> None:
    assert state.trusted(NOW) == state.authority(NOW).certificate_pem


def test_the_next_authority_is_announced_before_it_signs(tmp_path: Path) -> None:
    state, announced = State(tmp_path / "state"), tmp_path / "next.pem"
    following = CertificateAuthority.create("next", NOW)
    announced.write_bytes(following.certificate_pem)
    made = Certificates(TlsConfig(announced_ca=announced), ("gw",), state, NOW)
    assert made.trust.count("BEGIN CERTIFICATE") == 2
    assert following.certificate_pem.decode() in made.trust
    announced.write_bytes(following.certificate_pem * 2)
    made.poll(NOW)
    assert made.trust.count("BEGIN CERTIFICATE") == 3


@pytest.mark.parametrize("content", [b"no certificate", b""])
def test_an_announcement_that_no_agent_could_read_is_an_error(content: bytes, tmp_path: Path) -> None:
    announced = tmp_path / "next.pem"
    announced.write_bytes(content)
    with pytest.raises(OSError, match="announcedCa"):
        Certificates(TlsConfig(announced_ca=announced), ("gw",), State(tmp_path / "state"), NOW)


def test_a_servers_certificate_is_no_authority_to_announce(tmp_path: Path) -> None:
    announced = tmp_path / "next.pem"
    announced.write_bytes(CertificateAuthority.create("next", NOW).issue_server(["gw"], NOW, 3600).certificate)
    with pytest.raises(OSError, match="no authority"):
        Certificates(TlsConfig(announced_ca=announced), ("gw",), State(tmp_path / "state"), NOW)
