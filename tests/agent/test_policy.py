"""The agent's own check of heads: what passes is exact, and everything else is refused as a whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy import METHODS, CheckedRequest, HeadRefused, LocalPolicy, checked
from agent.request import render
from tests.agent.fakes import USER, get, post, websocket
from tests.agent.test_access import SERVER
from tunnel.errors import HeadError, Reason
from tunnel.known import KnownLines
from tunnel.ports import Headers, RequestBlock

POLICY = LocalPolicy()


def refused(head: RequestBlock, policy: LocalPolicy = POLICY) -> Reason:
    """The reason; the text must not quote a value."""
    with pytest.raises(HeadRefused) as caught:
        checked(head, policy)
    assert "secret" not in str(caught.value)
    return caught.value.reason


def test_a_plain_head_passes_unchanged() -> None:
    head = get(b"/api/v1/pods?watch=1", (b"accept", b"*/*"), (b"cookie", b"a=b"))
    assert checked(head, POLICY) == CheckedRequest(b"GET", b"/api/v1/pods?watch=1", head.headers, None, 0)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"impersonate-group", b"dev")],
        [(b"impersonate-user", b"")],
        [(b"impersonate-user", b"alice"), (b"impersonate-user", b"bob")],
        [*USER, (b"impersonate-uid", b"1"), (b"impersonate-uid", b"2")],
        [*USER, (b"impersonate-foo", b"x")],
        [*USER, (b"impersonate_user", b"x")],
        [*USER, (b"impersonate", b"x")],
    ],
)
def test_without_exactly_one_valid_user_it_would_run_as_the_agent(headers: Headers) -> None:
    assert refused(RequestBlock(b"GET", b"/", headers)) is Reason.REFUSED_HEAD


@pytest.mark.parametrize(
    "headers",
    [
        [(b"impersonate-user", b"system:admin")],
        [(b"impersonate-user", b"system:serviceaccount:kube-system:default")],
        [(b"impersonate-user", b"system:node:a")],
        [*USER, (b"impersonate-group", b"system:masters")],
        [*USER, (b"impersonate-group", b"system:nodes")],
        [*USER, (b"impersonate-extra-authentication.kubernetes.io%2fnode-name", b"a")],
    ],
)
def test_protected_identities_are_refused_unless_the_owner_of_the_cluster_allows_them(headers: Headers) -> None:
    assert refused(RequestBlock(b"GET", b"/", headers)) is Reason.PROTECTED_IDENTITY


def test_an_allowed_protected_group_passes_and_no_other() -> None:
    policy = LocalPolicy(frozenset({"system:masters"}))
    checked(RequestBlock(b"GET", b"/", [*USER, (b"impersonate-group", b"system:masters")]), policy)
    other = RequestBlock(b"GET", b"/", [*USER, (b"impersonate-group", b"system:nodes")])
    assert refused(other, policy) is Reason.PROTECTED_IDENTITY


@pytest.mark.parametrize(
    "name",
    b"authorization proxy-authorization host connection keep-alive te trailer transfer-encoding proxy-connection"
    b" http2-settings x-remote-user x-remote-group x-remote-extra-scopes x_remote_user x-client-cert ssl-client-cert"
    b" x-ssl-client-cert x-forwarded-client-cert x-forwarded-user x-auth-request-user".split(),
)
def test_another_credential_or_a_hop_by_hop_field_is_refused(name: bytes) -> None:
    assert refused(get(b"/", (name, b"secret"))) is Reason.REFUSED_HEAD


@pytest.mark.parametrize("name", [b"", b"A", b"a b", b"a:", b"a: b", b"a\r\nb", b"a\0", b"\xc3\xa9", b":a"])
def test_names_are_lower_case_tokens(name: bytes) -> None:
    assert refused(get(b"/", (name, b"x"))) is Reason.REFUSED_HEAD


@pytest.mark.parametrize("value", [b"a\r\nauthorization: x", b"a\n", b"\0", b"a\x7f", b"\x1b"])
def test_values_hold_no_control_characters(value: bytes) -> None:
    assert refused(get(b"/", (b"x", value))) is Reason.REFUSED_HEAD


@pytest.mark.parametrize(
    "target", [b"", b"api", b"*", b"https://x/", b"/a b", b"/a\r\n", b"/\0", b"/#a", b"/\xff", b"/" * 20_000]
)
def test_targets_are_paths(target: bytes) -> None:
    assert refused(get(target)) is Reason.REFUSED_HEAD


@pytest.mark.parametrize("target", [b"/a/../b", b"/%2e%2e/", b"//a", b"/a;b", b"/a%2fb?x=%00&y"])
def test_a_path_is_not_interpreted_here(target: bytes) -> None:
    assert checked(get(target), POLICY).target == target


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE", b"get", b"PRI", b"", b"GET /x HTTP/1.1\r\n"])
def test_unknown_methods_are_refused(method: bytes) -> None:
    assert refused(get(method=method)) is Reason.REFUSED_HEAD


@pytest.mark.parametrize("token", [b"h2c", b"tls/1.0", b"websocket, spdy/3.1", b"", b"spdy/3"])
def test_other_upgrades_are_refused(token: bytes) -> None:
    head = RequestBlock(b"GET", b"/", [*USER, (b"upgrade", token)], upgrade=True)
    assert refused(head) is Reason.REFUSED_HEAD


def test_an_upgrade_needs_its_flag_its_header_and_no_body() -> None:
    assert checked(websocket(), POLICY).upgrade == b"websocket"
    assert refused(get(b"/", (b"upgrade", b"websocket"))) is Reason.REFUSED_HEAD
    assert refused(RequestBlock(b"GET", b"/", USER, upgrade=True)) is Reason.REFUSED_HEAD
    assert refused(websocket((b"upgrade", b"websocket"))) is Reason.REFUSED_HEAD
    assert refused(websocket((b"content-length", b"5"))) is Reason.REFUSED_HEAD
    assert checked(websocket((b"content-length", b"0")), POLICY).length == 0


def test_a_bearer_token_among_the_websocket_protocols_is_a_credential() -> None:
    value = b"v5.channel.k8s.io, Base64url.bearer.authorization.k8s.io.c2VjcmV0"
    assert refused(websocket((b"sec-websocket-protocol", value))) is Reason.REFUSED_HEAD
    assert refused(get(b"/", (b"sec-websocket-protocol", value))) is Reason.REFUSED_HEAD


@pytest.mark.parametrize("value", [b"+1", b"-1", b"1_0", b"", b"0x1", b"1, 1", b"9" * 19])
def test_a_malformed_content_length_is_refused(value: bytes) -> None:
    assert refused(post((b"content-length", value))) is Reason.REFUSED_HEAD


def test_content_length_agrees_with_whether_a_body_follows() -> None:
    assert checked(post((b"content-length", b"5")), POLICY).length == 5
    assert checked(post(), POLICY).length is None
    assert checked(get(), POLICY).length == 0
    assert refused(get(b"/", (b"content-length", b"5"))) is Reason.REFUSED_HEAD
    assert refused(post((b"content-length", b"5"), (b"content-length", b"5"))) is Reason.REFUSED_HEAD


def test_too_many_headers_are_refused() -> None:
    assert refused(get(b"/", *[(b"x", b"y")] * 200)) is Reason.REFUSED_HEAD


bytes_ = st.binary(max_size=12)
headers_ = st.lists(
    st.tuples(st.one_of(bytes_, st.sampled_from([b"impersonate-user", b"host", b"x"])), bytes_), max_size=5
)


@given(
    method=st.one_of(bytes_, st.sampled_from(sorted(METHODS))), target=bytes_.map(lambda b: b"/" + b), headers=headers_
)
def test_whatever_passes_is_written_as_exactly_one_request(method: bytes, target: bytes, headers: Headers) -> None:
    """No head that is accepted can spell a second header line or request, or an identity of another name."""
    head = RequestBlock(method, target, [*USER, *headers])
    try:
        request = checked(head, POLICY)
        raw = render(request, SERVER, b"Bearer own")
    except (HeadRefused, HeadError):
        return
    lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert lines[0] == b"%b %b HTTP/1.1" % (method, target)
    names = [line.split(b": ")[0] for line in lines[1:]]
    assert len(lines) == 1 + 1 + len(USER) + len(headers) + 1
    assert names.count(b"authorization") == names.count(b"host") == names.count(b"impersonate-user") == 1


def test_remembered_headers_are_judged_with_each_request_line_and_flag_anew() -> None:
    known = KnownLines(USER, False)
    audit = (b"audit-id", b"1")

    def head(method: bytes = b"GET", target: bytes = b"/", ended: bool = True) -> RequestBlock:
        return RequestBlock(method, target, [audit, *USER], ended=ended, known=known)

    assert checked(head(), LocalPolicy()).length == 0
    assert checked(head(ended=False), LocalPolicy()).length is None
    assert refused(head(b"TRACE")) is Reason.REFUSED_HEAD
    assert refused(head(target=b"/ HTTP/1.1")) is Reason.REFUSED_HEAD


def test_remembered_headers_without_a_user_are_refused_each_time() -> None:
    known = KnownLines([(b"accept", b"a")], False)
    for _ in range(2):
        head = RequestBlock(b"GET", b"/", [(b"audit-id", b"1"), (b"accept", b"a")], known=known)
        assert refused(head) is Reason.REFUSED_HEAD
