"""Revocation lists: whose they are, how long they are good, and that nobody gets in for want of one."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from auth.authenticator import AuthenticationFailed
from auth.crl import CrlError, RevocationLists, read_crls
from auth.pki import CertificateAuthority
from auth.x509 import CertificateAuthenticator
from tests.auth.certificates import NOW, crl, loaded, shown

ONE = CertificateAuthority.create("one", NOW)
TWO = CertificateAuthority.create("two", NOW)
BOTH = (ONE.certificate, TWO.certificate)


def refused(lists: RevocationLists, authority: CertificateAuthority, serial: int, now: float = NOW) -> str:
    try:
        lists.check(authority.certificate, serial, now)
    except AuthenticationFailed as failed:
        return failed.reason
    return ""


def test_a_listed_certificate_is_refused_and_its_neighbour_is_not() -> None:
    issued = [ONE.issue_client("jane", [], NOW, 600) for _ in range(2)]
    lists = RevocationLists.of([crl(ONE, [loaded(issued[0]).serial_number])], BOTH)
    authenticator = CertificateAuthenticator(BOTH, lists)
    with pytest.raises(AuthenticationFailed, match="revoked by its authority"):
        authenticator.authenticate(shown(issued[0]), NOW)
    assert authenticator.authenticate(shown(issued[1]), NOW) is not None


def test_a_list_speaks_for_its_own_authority_alone() -> None:
    lists = RevocationLists.of([crl(ONE, [7])], BOTH)
    assert refused(lists, ONE, 7)
    assert not refused(lists, TWO, 7)


def test_where_the_list_has_lapsed_all_of_that_authority_are_refused() -> None:
    lists = RevocationLists.of([crl(ONE, until=NOW + 10), crl(TWO)], BOTH)
    assert not refused(lists, ONE, 7, NOW + 9)
    assert lists.problem(NOW + 9) is None
    assert "lapsed" in refused(lists, ONE, 7, NOW + 10)
    assert not refused(lists, TWO, 7, NOW + 10)
    assert lists.problem(NOW + 10) == (
        "the revocation list of CN=one has lapsed at 2027-01-15T08:00Z: its certificates are refused"
    )


def test_the_newest_list_counts_wherever_it_stands() -> None:
    old, new = crl(ONE, [7], until=NOW + 10), crl(ONE, [8], made=NOW + 5)
    for order in ([old, new], [new, old]):
        lists = RevocationLists.of(order, BOTH)
        assert refused(lists, ONE, 8, NOW + 20)
        assert not refused(lists, ONE, 7, NOW + 20)


def test_a_list_that_only_bears_an_authoritys_name_closes_it() -> None:
    impostor = CertificateAuthority.create("one", NOW)
    lists = RevocationLists.of([crl(ONE, signer=impostor)], BOTH)
    assert refused(lists, ONE, 7)
    assert "not signed by it" in str(lists.problem(NOW))
    with_its_own = RevocationLists.of([crl(ONE, signer=impostor), crl(ONE, [8])], BOTH)
    assert not refused(with_its_own, ONE, 7)
    assert refused(with_its_own, ONE, 8)


def test_a_list_of_nobodys_is_not_looked_at() -> None:
    lists = RevocationLists.of([crl(ONE, [7], made=NOW - 9, until=NOW - 1)], [TWO.certificate])
    assert lists.problem(NOW) is None
    assert not refused(lists, ONE, 7)


@pytest.mark.parametrize("critical", [x509.DeltaCRLIndicator(1), x509.IssuingDistributionPoint(
    None, None, True, False, None, False, False)])  # fmt: skip
def test_lists_that_say_less_than_all_are_refused(critical: x509.ExtensionType) -> None:
    with pytest.raises(CrlError, match="complete one"):
        RevocationLists.of([crl(ONE, [7], critical=critical)], BOTH)


def test_files_hold_many_in_pem_or_one_in_der() -> None:
    given = [crl(ONE, [7]), crl(TWO, [8])]
    pem = b"# ours\n" + b"".join(one.public_bytes(Encoding.PEM) for one in given)
    assert read_crls(pem) == tuple(given)
    assert read_crls(given[0].public_bytes(Encoding.DER)) == (given[0],)


@given(st.binary(max_size=60))
def test_what_is_no_list_is_refused(data: bytes) -> None:
    for text in (data, b"-----BEGIN X509 CRL-----\n" + data + b"\n-----END X509 CRL-----\n"):
        with pytest.raises(CrlError, match="no certificate revocation list"):
            read_crls(text)


@given(st.frozensets(st.integers(1, 50), max_size=8), st.integers(1, 50), st.integers(-10, 10))
def test_a_certificate_passes_if_its_list_is_fresh_and_does_not_name_it(
    listed: frozenset[int], serial: int, later: int
) -> None:
    lists = RevocationLists.of([crl(ONE, listed, made=NOW - 9, until=NOW)], BOTH)
    assert bool(refused(lists, ONE, serial, NOW + later)) == (serial in listed or later >= 0)
