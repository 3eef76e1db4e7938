"""For how long: a chain of renewals ends where its login said, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.identity import Identity, credential_extra
from gateway.issuing.issuance import LEAST, NotIssued, check_caller, own_extra, term
from gateway.issuing.store import CERTIFICATE, IssuedCredential

NOW = 1_800_000_000.0
HOUR, DAY = 3600.0, 86_400.0


def who(source: str, expires: float = NOW + 300, **more: object) -> Identity:
    return Identity(**{
        "user": "jane", "groups": ("dev",), "uid": "", "extra": (), "source": source, "credential_id": "id",
        "expires": expires, **more,
    })  # type: ignore[arg-type] # fmt: skip


def record(until: float) -> IssuedCredential:
    return IssuedCredential("id", CERTIFICATE, "ab", "jane", NOW, NOW + HOUR, until, "login")


def test_a_login_gets_the_lifetime_though_its_own_token_is_short() -> None:
    got = term(who("oidc"), None, 9 * DAY, DAY, 7 * DAY, NOW)
    assert (got.expires, got.renewable_until) == (NOW + DAY, NOW + 7 * DAY)
    assert term(who("oidc"), None, 600, DAY, 7 * DAY, NOW).expires == NOW + 600


@pytest.mark.parametrize("source", ["x509", "kulvert-token"])
def test_what_has_no_record_is_never_outlived(source: str) -> None:
    got = term(who(source), None, DAY, DAY, 7 * DAY, NOW)
    assert (got.expires, got.renewable_until) == (NOW + 300, NOW + 300)


def test_a_renewal_ends_with_its_login() -> None:
    got = term(who("x509"), record(NOW + HOUR), DAY, DAY, 7 * DAY, NOW)
    assert (got.expires, got.renewable_until) == (NOW + HOUR, NOW + HOUR)
    with pytest.raises(NotIssued, match="log in anew"):
        term(who("x509"), record(NOW + LEAST - 1), DAY, DAY, 7 * DAY, NOW)


@given(
    st.lists(st.tuples(st.floats(0, 2 * DAY), st.floats(600, 9 * DAY)), max_size=30),
    st.floats(60, 2 * DAY),
    st.floats(60, 9 * DAY),
)
def test_no_chain_of_renewals_passes_the_end_of_its_login(
    steps: list[tuple[float, float]], lifetime: float, renewable_for: float
) -> None:
    now, got = NOW, term(who("oidc"), None, DAY, lifetime, renewable_for, NOW)
    for wait, asked in steps:
        now += wait
        if now >= got.expires:
            break
        try:
            got = term(who("x509", got.expires), record(got.renewable_until), asked, lifetime, renewable_for, now)
        except NotIssued:
            break
        assert got.expires <= now + min(asked, lifetime)
        assert got.expires <= got.renewable_until <= NOW + renewable_for


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"cluster": "edge"}, "service accounts"),
        ({"user": "system:serviceaccount:ns:sa"}, "service accounts"),
        ({"source": "front-proxy"}, "front proxy"),
        ({"groups": ("system:masters",)}, "system:masters"),
        ({"user": "system:admin"}, "system:admin"),
    ],
)
def test_some_get_none(more: dict[str, object], reason: str) -> None:
    with pytest.raises(NotIssued, match=reason):
        check_caller(who(**{"source": "oidc", **more}))  # type: ignore[arg-type] # the fields' own kinds
    check_caller(who("oidc"))


def test_the_shown_credentials_id_is_not_handed_on() -> None:
    extra = (("tenant", ("a",)), *credential_extra("JTI=1"))
    assert own_extra(who("oidc", extra=extra)) == (("tenant", ("a",)),)
