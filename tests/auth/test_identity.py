"""What a listener saw of a user, and what of it may be shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from auth.identity import BadIdentity, Credentials, Identity, credential_extra


def test_credentials_and_their_errors_never_show_the_secret() -> None:
    credentials = Credentials(
        b"Bearer planted-secret", b"planted-certificate", remote_headers=((b"x-remote-user", b"planted-name"),)
    )
    for shown in (repr(credentials), str(credentials), f"{credentials}"):
        assert "planted" not in shown
    assert repr(credentials) == "<Credentials: authorization, certificate, remote headers>"
    assert repr(Credentials()) == "<Credentials: none>"


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (b"Bearer abc.DEF-_~+/=", "abc.DEF-_~+/="),
        (b"bearer abc", "abc"),
        (b"BEARER  abc", "abc"),
        (b"Bearer ", None),
        (b"Bearer", None),
        (b"Bearer a b", None),
        (b" Bearer abc", None),
        (b"Bearer abc\n", None),
        (b"Bearer \xc3\xa9", None),
        (b"Basic abc", None),
        (b"", None),
        (None, None),
    ],
)
def test_a_bearer_token_is_read_as_rfc_6750_writes_it(header: bytes | None, token: str | None) -> None:
    assert Credentials(header).bearer == token


def test_an_empty_authorization_header_is_not_an_absent_one() -> None:
    assert Credentials().absent
    assert not Credentials(b"").absent
    assert not Credentials(None, b"der").absent


@given(st.tuples(*[st.none() | st.binary(max_size=8)] * 2), st.tuples(*[st.none() | st.binary(max_size=8)] * 2))
def test_different_credentials_have_different_digests(
    one: tuple[bytes | None, bytes | None], two: tuple[bytes | None, bytes | None]
) -> None:
    assert (Credentials(*one).digest == Credentials(*two).digest) == (one == two)


def test_two_credentials_that_claim_one_id_are_two_identities() -> None:
    one = Identity("jane", ("dev",), "", (), "kulvert-token", "JTI=1", 10.0)
    two = Identity("jane", ("dev", "admins"), "", (), "kulvert-token", "JTI=1", 10.0)
    assert hash(one) == hash(two)
    assert one != two
    assert len({one, two}) == 2


def test_the_credential_id_is_the_extra_that_kubernetes_uses() -> None:
    assert credential_extra("JTI=1") == (("authentication.kubernetes.io/credential-id", ("JTI=1",)),)


PAIRS = st.none() | st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=3)), max_size=3).map(tuple)


@example(((b"a", b"bc"),), ((b"ab", b"c"),))
@example((), None)
@given(PAIRS, PAIRS)
def test_other_remote_headers_make_other_credentials(one: Any, two: Any) -> None:
    shown = [Credentials(b"x", b"y", headers).digest for headers in (one, two)]
    assert (shown[0] == shown[1]) == (one == two)


@pytest.mark.parametrize("field", range(5))
def test_nobody_is_called_what_no_header_and_no_record_can_hold(field: int) -> None:
    texts = ["jane"] * 5
    texts[field] = "\ud800"
    user, group, uid, extra, credential = texts
    with pytest.raises(BadIdentity):
        Identity(user, (group,), uid, (("key", (extra,)),), "test", credential, 10.0)
