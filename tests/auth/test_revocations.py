"""What was taken back counts no more, at once, whoever remembers it."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from auth.authenticator import AuthenticationFailed, Authenticator
from auth.identity import Credentials
from auth.pki import CertificateAuthority
from auth.revocations import Revocations
from auth.tokens import TokenAuthenticator, TokenSigner
from auth.x509 import CertificateAuthenticator
from tests.auth.certificates import NOW, loaded, shown

OWN = CertificateAuthority.create("kulvert", NOW)
OTHER = CertificateAuthority.create("other", NOW)
SIGNER = TokenSigner("https://kulvert.test", "kulvert", ec.generate_private_key(ec.SECP256R1()))


def known(list_: Revocations) -> tuple[Authenticator, Authenticator]:
    authorities = (OWN.certificate, OTHER.certificate)
    return (
        CertificateAuthenticator(authorities, revoked=lambda: list_, own=(OWN.certificate,)),
        TokenAuthenticator("https://kulvert.test", "kulvert", [SIGNER.verification_key], revoked=lambda: list_),
    )


def revoked(authenticator: Authenticator, credentials: Credentials) -> bool:
    try:
        assert authenticator.authenticate(credentials, NOW + 100) is not None
    except AuthenticationFailed as failed:
        return "revoked" in failed.reason
    return False


def token(jti: str, now: float = NOW) -> Credentials:
    return Credentials(b"Bearer " + SIGNER.issue("jane", [], "", jti, now, 600).encode())


def test_a_serial_number_means_one_certificate() -> None:
    issued = [OWN.issue_client("jane", [], NOW, 600) for _ in range(2)]
    certificates, _ = known(Revocations(serials=frozenset((loaded(issued[0]).serial_number,))))
    assert [revoked(certificates, shown(one)) for one in issued] == [True, False]


def test_an_id_means_one_token() -> None:
    _, tokens = known(Revocations(tokens=frozenset(("t1",))))
    assert [revoked(tokens, token(jti)) for jti in ("t1", "t2")] == [True, False]


@pytest.mark.parametrize(("issued", "gone"), [(NOW - 1, True), (NOW, True), (NOW + 1, False)])
def test_of_a_user_everything_goes_up_to_a_moment(issued: float, gone: bool) -> None:
    certificates, tokens = known(Revocations(users={"jane": NOW}))
    assert revoked(tokens, token("t", issued)) is gone
    assert revoked(certificates, shown(OWN.issue_client("jane", [], issued, 600))) is gone
    assert not revoked(certificates, shown(OWN.issue_client("june", [], issued, 600)))


def test_another_authoritys_certificate_is_taken_as_old_as_it_says() -> None:
    certificates, _ = known(Revocations(users={"jane": NOW}))
    assert revoked(certificates, shown(OTHER.issue_client("jane", [], NOW + 299, 600)))
    assert not revoked(certificates, shown(OTHER.issue_client("jane", [], NOW + 301, 600)))


@given(st.floats(0, 100), st.floats(0, 100))
def test_nothing_issued_before_a_revocation_survives_it(issued: float, before: float) -> None:
    certificates, tokens = known(Revocations(users={"jane": NOW + before}))
    gone = revoked(tokens, token("t", NOW + issued))
    assert gone == revoked(certificates, shown(OWN.issue_client("jane", [], NOW + issued, 600)))
    assert gone or issued > before
