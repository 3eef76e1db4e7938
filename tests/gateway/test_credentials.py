"""What of a request is a credential: bearer tokens in either place, and headers of a front proxy alone."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.authenticator import AuthenticationFailed
from auth.frontproxy import FrontProxies
from auth.identity import Credentials
from auth.pki import CertificateAuthority
from gateway.credentials import authorization_of, credentials_of, no_front_proxies
from gateway.failures import Refused
from gateway.peer import Peer
from tests.auth.certificates import der
from tunnel.head import RequestHead, RequestReader
from tunnel.limits import HeadLimits

NOW = time.time()
FRONT = CertificateAuthority.create("front", NOW)
PROXIES = FrontProxies((FRONT.certificate,), frozenset(("aggregator",)))
PROXY = Peer("192.0.2.1", der(FRONT.issue_client("aggregator", [], NOW, 600)))
NAMED = b"X-Remote-User: jane\r\nX-Remote-Group: dev\r\n"


def head(lines: bytes) -> RequestHead:
    read = RequestReader(HeadLimits()).feed(b"GET /clusters/a/api HTTP/1.1\r\nHost: gw\r\n" + lines + b"\r\n")
    assert read is not None
    return read


# --- front proxies


def test_a_front_proxys_headers_are_credentials() -> None:
    shown = credentials_of(head(NAMED), PROXY, lambda: PROXIES)
    assert shown.remote_headers == ((b"x-remote-user", b"jane"), (b"x-remote-group", b"dev"))
    assert credentials_of(head(NAMED), PROXY, lambda: PROXIES) is shown
    other = credentials_of(head(NAMED.replace(b"jane", b"june")), PROXY, lambda: PROXIES)
    assert other.digest != shown.digest
    assert credentials_of(head(b""), PROXY, lambda: PROXIES).remote_headers == ()


@pytest.mark.parametrize(
    "peer",
    [
        Peer("192.0.2.1", None),
        Peer("192.0.2.1", b"no certificate"),
        Peer("192.0.2.1", der(FRONT.issue_client("jane", [], NOW, 600))),
        Peer("192.0.2.1", der(CertificateAuthority.create("other", NOW).issue_client("aggregator", [], NOW, 600))),
    ],
)
def test_from_anybody_else_the_headers_are_not_read(peer: Peer) -> None:
    for lines in (NAMED, b"X_Remote_User: root\r\n", b"Connection: X-Remote-User\r\n" + NAMED):
        shown = credentials_of(head(lines), peer, lambda: PROXIES)
        assert shown == Credentials(None, peer.certificate)
        assert shown.remote_headers is None


def test_without_front_proxies_nobody_is_one() -> None:
    assert credentials_of(head(NAMED), PROXY, no_front_proxies).remote_headers is None


def test_who_has_no_certificate_costs_no_question() -> None:
    def asked() -> FrontProxies | None:
        raise AssertionError

    assert credentials_of(head(b"Authorization: Bearer x\r\n"), Peer("", None), asked).bearer == "x"


def test_a_peer_is_judged_anew_by_other_front_proxies() -> None:
    peer = Peer("192.0.2.1", PROXY.certificate)
    stricter = FrontProxies((FRONT.certificate,), frozenset(("hub",)))
    for trusted, proxies in ((PROXIES, True), (stricter, False), (PROXIES, True)):
        assert (credentials_of(head(NAMED), peer, lambda t=trusted: t).remote_headers is not None) is proxies  # type: ignore[misc] # a lambda with a default


@pytest.mark.parametrize("lines", [b"X_Remote_User: root\r\n", b"Connection: close, x-remote-user\r\n"])
def test_headers_that_can_be_read_in_two_ways_are_refused(lines: bytes) -> None:
    with pytest.raises(AuthenticationFailed):
        credentials_of(head(lines + NAMED), PROXY, lambda: PROXIES)


# --- tokens in subprotocols

PREFIX = b"base64url.bearer.authorization.k8s.io."
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n"


def offered(*values: bytes, more: bytes = UPGRADE) -> bytes | None:
    lines = b"".join(b"Sec-WebSocket-Protocol: " + value + b"\r\n" for value in values)
    return authorization_of(head(more + lines))


def encoded(token: bytes) -> bytes:
    return PREFIX + base64.urlsafe_b64encode(token).rstrip(b"=")


@pytest.mark.parametrize("token", [b"a", b"ab", b"abc", b"abcd", b"~~~???>>>"])
def test_a_token_beside_a_protocol_is_the_bearer_token(token: bytes) -> None:
    for values in ([b"v5.channel.k8s.io, " + encoded(token)], [encoded(token), b"v5.channel.k8s.io"]):
        assert offered(*values) == b"Bearer " + token


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (PREFIX + b"YQ==", "without padding"),
        (PREFIX + b"YWI=", "without padding"),
        (PREFIX + b"YQ=", "without padding"),
        (PREFIX + b"Y", "base64url is wrong"),
        (PREFIX + b"+/8", "without padding"),
        (PREFIX + b"Y Q", "without padding"),
        (PREFIX, "without padding"),
        (encoded(b"\xff\xfe"), "not UTF-8"),
        (encoded(b"a") + b", " + encoded(b"a"), "two bearer tokens"),
    ],
)
def test_a_malformed_token_is_refused_and_not_shown(value: bytes, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        offered(b"v5.channel.k8s.io", value)
    assert refused.value.failure.code == 401
    assert reason in refused.value.detail
    assert value.rpartition(b".")[2].decode() not in refused.value.detail or value == PREFIX


@pytest.mark.parametrize("beside", [(), (b"",), (b" , ",)])
def test_a_token_may_not_be_all_that_is_offered(beside: tuple[bytes, ...]) -> None:
    with pytest.raises(Refused) as refused:
        offered(encoded(b"token"), *beside)
    assert "another subprotocol" in refused.value.detail


def test_only_a_websocket_upgrade_brings_one() -> None:
    assert offered(b"a, " + encoded(b"token"), more=b"") is None
    spdy = b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    assert offered(b"a, " + encoded(b"token"), more=spdy) is None


def test_the_header_comes_first() -> None:
    assert offered(b"a, " + encoded(b"token"), more=UPGRADE + b"Authorization: Bearer x\r\n") == b"Bearer x"
    assert offered(b"a, b") is None


@given(st.binary(min_size=1, max_size=40))
def test_whatever_is_taken_is_the_very_token(token: bytes) -> None:
    try:
        token.decode()
    except UnicodeDecodeError:
        with pytest.raises(Refused):
            offered(b"v5.channel.k8s.io", encoded(token))
    else:
        assert offered(b"v5.channel.k8s.io", encoded(token)) == b"Bearer " + token
