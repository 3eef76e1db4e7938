"""The order of authenticators, and what is remembered of their answers."""

from __future__ import annotations

import pytest

from auth.authenticator import AuthenticationFailed, NoCredentials
from auth.chain import AuthenticatorChain
from auth.identity import Credentials, Identity

NOW = 1000.0
GOOD, BAD = Credentials(b"Bearer good"), Credentials(b"Bearer bad")


class Scripted:
    """Claims what starts as it was told, and counts how often it was asked."""

    def __init__(self, name: str, certificate: bool = False, expires: float = NOW + 600) -> None:
        self.name = name
        self.certificate = certificate
        self.expires = expires
        self.asked = 0

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        self.asked += 1
        if self.certificate and credentials.certificate is None:
            return None
        if not self.certificate and credentials.bearer is None:
            return None
        if credentials.bearer == "bad" and not self.certificate:
            raise AuthenticationFailed("bad token")
        return Identity(self.name, (), "", (), self.name, "id", self.expires)


def test_the_first_authenticator_that_claims_the_credentials_decides() -> None:
    both = Credentials(b"Bearer good", b"certificate")
    certificate, token = Scripted("certificate", certificate=True), Scripted("token")
    assert AuthenticatorChain([certificate, token]).authenticate(both, NOW).user == "certificate"
    assert AuthenticatorChain([token, certificate]).authenticate(both, NOW).user == "token"


def test_a_bad_credential_is_final_even_beside_a_good_one() -> None:
    chain = AuthenticatorChain([Scripted("token"), Scripted("certificate", certificate=True)])
    with pytest.raises(AuthenticationFailed, match="bad token"):
        chain.authenticate(Credentials(b"Bearer bad", b"certificate"), NOW)


def test_nobody_is_anonymous() -> None:
    chain = AuthenticatorChain([Scripted("token")])
    with pytest.raises(NoCredentials):
        chain.authenticate(Credentials(), NOW)
    with pytest.raises(NoCredentials):
        chain.authenticate(Credentials(remote_headers=()), NOW)
    for header in (b"", b"Basic eA==", b"Bearer"):
        with pytest.raises(AuthenticationFailed, match="no authenticator"):
            chain.authenticate(Credentials(header), NOW)


def test_a_chain_without_authenticators_lets_nobody_in() -> None:
    with pytest.raises(AuthenticationFailed):
        AuthenticatorChain([]).authenticate(GOOD, NOW)


def test_a_known_credential_is_remembered_and_checked_again_after_a_while() -> None:
    token = Scripted("token")
    chain = AuthenticatorChain([token], ttl=30)
    first = chain.authenticate(GOOD, NOW)
    assert chain.authenticate(Credentials(b"Bearer good"), NOW + 29) is first
    assert token.asked == 1
    chain.authenticate(GOOD, NOW + 30)
    assert token.asked == 2


def test_nothing_is_remembered_past_its_expiry() -> None:
    token = Scripted("token", expires=NOW + 10)
    chain = AuthenticatorChain([token], ttl=30)
    chain.authenticate(GOOD, NOW)
    with pytest.raises(AuthenticationFailed, match="expired"):
        chain.authenticate(GOOD, NOW + 10)


def test_an_authenticator_that_forgets_about_expiry_is_corrected() -> None:
    with pytest.raises(AuthenticationFailed, match="expired"):
        AuthenticatorChain([Scripted("token", expires=NOW)]).authenticate(GOOD, NOW)


def test_a_failure_is_remembered_briefly_and_raised_anew() -> None:
    token = Scripted("token")
    chain = AuthenticatorChain([token], failure_ttl=5)
    for moment in (NOW, NOW + 4):
        with pytest.raises(AuthenticationFailed, match="bad token"):
            chain.authenticate(BAD, moment)
    assert token.asked == 1
    with pytest.raises(AuthenticationFailed):
        chain.authenticate(BAD, NOW + 5)
    assert token.asked == 2


def test_a_clock_set_back_makes_it_ask_again() -> None:
    token = Scripted("token")
    chain = AuthenticatorChain([token])
    chain.authenticate(GOOD, NOW)
    chain.authenticate(GOOD, NOW - 100)
    assert token.asked == 2


def test_the_memory_is_bounded_and_bad_tokens_push_out_no_user() -> None:
    token = Scripted("token")
    chain = AuthenticatorChain([token, Scripted("certificate", certificate=True)], capacity=10)
    chain.authenticate(GOOD, NOW)
    for number in range(100):
        with pytest.raises(AuthenticationFailed):
            chain.authenticate(Credentials(b"Basic %d" % number), NOW)
    asked = token.asked
    chain.authenticate(GOOD, NOW)
    assert token.asked == asked
    for number in range(100):
        chain.authenticate(Credentials(b"Bearer %d" % number), NOW)
    assert len(chain._known) == len(chain._failed) == 10


def test_changed_authorities_forget_everything() -> None:
    token = Scripted("token")
    chain = AuthenticatorChain([token])
    chain.authenticate(GOOD, NOW)
    chain.clear()
    chain.authenticate(GOOD, NOW)
    assert token.asked == 2


def test_who_cannot_be_written_down_is_not_authenticated() -> None:
    with pytest.raises(AuthenticationFailed, match="not Unicode"):
        AuthenticatorChain([Scripted("a\ud800")]).authenticate(GOOD, NOW)
