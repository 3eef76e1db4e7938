"""Users whom a front proxy names: who may name them, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.authenticator import AuthenticationFailed
from auth.chain import AuthenticatorChain
from auth.frontproxy import FrontProxies, HeaderNames
from auth.identity import Credentials, Identity
from auth.pki import CertificateAuthority
from auth.x509 import CertificateAuthenticator
from tests.auth.certificates import NOW, der, loaded
from tunnel.errors import HeadError

FRONT = CertificateAuthority.create("front-proxy-ca", NOW)
USERS = CertificateAuthority.create("users", NOW)
PROXIES = FrontProxies((FRONT.certificate,), frozenset(("aggregator",)))
PROXY = der(FRONT.issue_client("aggregator", ["system:masters"], NOW, 600))
JANE = (b"x-remote-user", b"jane")


def ask(*headers: tuple[bytes, bytes], certificate: bytes = PROXY) -> Identity | None:
    return PROXIES.authenticate(Credentials(b"Bearer x", certificate, PROXIES.headers.collected(headers)), NOW)


def test_the_headers_name_the_user_as_a_whole() -> None:
    identity = ask(
        JANE, (b"x-remote-group", b"dev"), (b"accept", b"*/*"), (b"x-remote-group", b"ops, and more"),
        (b"x-remote-group", b""), (b"x-remote-uid", b"u-1"), (b"x-remote-extra-scopes", b"a"),
        (b"x-remote-extra-scopes", b"b"), (b"x-remote-extra-", b"nameless"),
    )  # fmt: skip
    assert identity is not None
    assert (identity.user, identity.groups, identity.uid) == ("jane", ("dev", "ops, and more"), "u-1")
    assert identity.extra == (("scopes", ("a", "b")),)
    assert identity.source == "front-proxy"
    assert identity.expires == NOW + 600
    assert identity.credential_id.startswith("X509SHA256=")


def test_two_users_of_one_proxy_have_two_hashes() -> None:
    assert hash(ask(JANE)) != hash(ask((b"x-remote-user", b"june")))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"example.com%2fscopes", "example.com/scopes"),
        (b"%41b", "Ab"),
        (b"caf%c3%a9", "café"),
        (b"100%", "100%"),
        (b"a%zz%41", "a%zz%41"),
        (b"a+b", "a+b"),
    ],
)
def test_extra_keys_are_decoded_as_kube_apiserver_does(name: bytes, key: str) -> None:
    identity = ask(JANE, (b"x-remote-extra-" + name, b"v"))
    assert identity is not None
    assert identity.extra == ((key, ("v",)),)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ((), "nobody itself"),
        (((b"x-remote-group", b"dev"),), "nobody itself"),
        (((b"x-remote-user", b""),), "nobody itself"),
        ((JANE, JANE), "more than one"),
        ((JANE, (b"x-remote-user", b"")), "more than one"),
        ((JANE, (b"x_remote_user", b"root")), "underscores"),
        ((JANE, (b"x-remote_group", b"root")), "underscores"),
        ((JANE, (b"x_remote_extra_a", b"root")), "underscores"),
        ((JANE, (b"connection", b"close, X-Remote-User")), "Connection"),
        ((JANE, (b"connection", b"x_remote_group")), "Connection"),
        ((JANE, (b"connection", b"keep-alive"), (b"connection", b"x-remote-extra-a")), "Connection"),
        (((b"x-remote-user", b"\xff"),), "UTF-8"),
        ((JANE, (b"x-remote-extra-%ff", b"v")), "UTF-8"),
        ((JANE, (b"x-remote-uid", b"1"), (b"x-remote-uid", b"2")), "more than one"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(headers: Any, reason: str) -> None:
    with pytest.raises(AuthenticationFailed, match=reason):
        ask(*headers)


def test_headers_of_two_names_for_one_thing_are_refused() -> None:
    names = HeaderNames.of(["X-Remote-User", "X-Forwarded-User"], [], [], [])
    proxies = FrontProxies((FRONT.certificate,), frozenset(("aggregator",)), names)
    second = Credentials(None, PROXY, ((b"x-forwarded-user", b"jane"),))
    identity = proxies.authenticate(second, NOW)
    assert identity is not None
    assert identity.user == "jane"
    with pytest.raises(AuthenticationFailed, match="more than one"):
        proxies.authenticate(Credentials(None, PROXY, ((b"x-forwarded-user", b"jane"), JANE)), NOW)


OTHERS = {
    "another CA of that name": (CertificateAuthority.create("front-proxy-ca", NOW), "aggregator", NOW),
    "expired": (FRONT, "aggregator", NOW - 1000),
    "another name": (FRONT, "jane", NOW),
    "the users' CA": (USERS, "aggregator", NOW),
}


@pytest.mark.parametrize("other", OTHERS)
def test_nobody_else_speaks_for_others_though_a_listener_were_mistaken(other: str) -> None:
    authority, name, now = OTHERS[other]
    with pytest.raises(AuthenticationFailed):
        ask(JANE, certificate=der(authority.issue_client(name, [], now, 600)))
    with pytest.raises(AuthenticationFailed):
        ask(JANE, certificate=b"no certificate")


def test_a_servers_certificate_speaks_for_nobody() -> None:
    issued = FRONT.issue_server(["aggregator"], NOW, 600)
    with pytest.raises(AuthenticationFailed):
        ask(JANE, certificate=der(issued))


def test_other_credentials_are_not_its_business() -> None:
    assert PROXIES.authenticate(Credentials(b"Bearer x", PROXY), NOW) is None
    assert PROXIES.authenticate(Credentials(b"Bearer x"), NOW) is None


SHARED = FrontProxies((USERS.certificate,), frozenset(("aggregator",)))
PEOPLE = CertificateAuthenticator((USERS.certificate,), proxied=SHARED.recognise)


@pytest.mark.parametrize("order", [[PEOPLE, SHARED], [SHARED, PEOPLE], [PEOPLE]])
def test_a_front_proxy_is_no_user_by_its_own_name_though_the_ca_is_the_users(order: list[Any]) -> None:
    proxy = der(USERS.issue_client("aggregator", ["devs"], NOW, 600))
    chain = AuthenticatorChain(order)
    for headers in (None, ()):
        with pytest.raises(AuthenticationFailed):
            chain.authenticate(Credentials(None, proxy, headers), NOW)
    jane = Credentials(None, der(USERS.issue_client("jane", [], NOW, 600)))
    assert chain.authenticate(jane, NOW).user == "jane"


def test_recognition_goes_by_issuer_and_name() -> None:
    assert PROXIES.recognise_der(PROXY)
    assert not PROXIES.recognise_der(der(FRONT.issue_client("jane", [], NOW, 600)))
    assert not PROXIES.recognise_der(der(USERS.issue_client("aggregator", [], NOW, 600)))
    assert not PROXIES.recognise_der(b"no certificate")
    assert not PROXIES.recognise(loaded(FRONT.issue_server(["aggregator"], NOW, 600)))


@pytest.mark.parametrize("allowed", [frozenset(), frozenset(("",))])
def test_an_authority_without_names_is_refused(allowed: frozenset[str]) -> None:
    with pytest.raises(ValueError, match="common names"):
        FrontProxies((FRONT.certificate,), allowed)
    with pytest.raises(ValueError, match="at least one"):
        FrontProxies((), frozenset(("x",)))


@pytest.mark.parametrize("name", ["X-User", "Authorization", "X_Remote_User", "X-Remote-", "", "X-Remote-User:"])
def test_names_that_could_reach_an_application_are_refused(name: str) -> None:
    good = ["X-Remote-User"]
    users: list[tuple[list[str], ...]] = [([name], [], [], []), (good, [name], [], []), (good, [], [], [name])]
    for one in users:
        with pytest.raises(ValueError):
            HeaderNames.of(*one)
    with pytest.raises(ValueError, match="at least one"):
        HeaderNames.of([], [], [], [])


NAMES = st.sampled_from(
    [b"x-remote-user", b"x_remote_user", b"x-remote-group", b"x-remote-extra-a", b"connection", b"a"]
)
VALUES = st.sampled_from([b"", b"jane", b"root", b"x-remote-user", b"\xff", b"a, X_Remote_Group"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5))
def test_whoever_gets_in_was_named_once_and_whole(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        identity = ask(*headers)
    except (AuthenticationFailed, HeadError):
        return
    assert identity is not None
    assert [value for name, value in headers if name == b"x-remote-user"] == [identity.user.encode()]
    assert not any(b"_" in name for name, _ in headers)
    assert not any(b"remote" in value.lower() for name, value in headers if name == b"connection")
