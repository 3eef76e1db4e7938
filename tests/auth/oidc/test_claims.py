"""Claims become users as kube-apiserver makes users of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from auth.authenticator import AuthenticationFailed
from auth.identity import Identity
from auth.oidc.claims import SKEW, check_audience, check_required, check_times, identity_of
from auth.oidc.config import ExtraClaim, JwtIssuer, PrefixedClaim
from tests.support.oidc_issuer import ISSUER, NOW

DIGEST = "d" * 64
EMAIL = dataclasses.replace(ISSUER, username=PrefixedClaim("email", ""))


def mapped(claims: dict[str, Any], **changes: Any) -> Identity:
    issuer: JwtIssuer = dataclasses.replace(ISSUER, **changes)
    return identity_of({"sub": "jane", **claims}, issuer, DIGEST, NOW)


@pytest.mark.parametrize(
    ("claim", "groups"),
    [
        (["dev", "ops", "dev"], ("oidc:dev", "oidc:ops")),
        ("dev", ("oidc:dev",)),
        ("", ()),
        ([], ()),
        (["", "dev"], ("oidc:dev",)),
        (None, ()),
    ],
)
def test_groups_are_a_text_or_a_list(claim: Any, groups: tuple[str, ...]) -> None:
    assert mapped({"groups": claim}).groups == groups


def test_without_the_claim_there_are_no_groups() -> None:
    assert mapped({}).groups == ()
    assert mapped({"groups": ["dev"]}, groups=None).groups == ()


@pytest.mark.parametrize("claim", [{"a": 1}, 7, True, [1], [None], [["dev"]]])
def test_groups_of_another_type_refuse_the_token(claim: Any) -> None:
    with pytest.raises(AuthenticationFailed, match="groups is neither"):
        mapped({"groups": claim})


def test_groups_that_are_elsewhere_refuse_the_token() -> None:
    with pytest.raises(AuthenticationFailed, match="_claim_names"):
        mapped({"_claim_names": {"groups": "src1"}})
    assert mapped({"_claim_names": {"other": "src1"}}).groups == ()


def test_too_many_groups_refuse_the_token() -> None:
    with pytest.raises(AuthenticationFailed, match="more than 1000"):
        mapped({"groups": [str(number) for number in range(1001)]})


@pytest.mark.parametrize("verified", [True, ...])
def test_an_email_that_nobody_calls_unverified_is_a_name(verified: Any) -> None:
    claims = {"email": "jane@example.com"} | ({} if verified is ... else {"email_verified": verified})
    assert identity_of(claims, EMAIL, DIGEST, NOW).user == "jane@example.com"


@pytest.mark.parametrize("verified", [False, None, "true", 1, [True]])
def test_an_unverified_email_is_nobodys_name(verified: Any) -> None:
    with pytest.raises(AuthenticationFailed, match="not verified"):
        identity_of({"email": "jane@example.com", "email_verified": verified}, EMAIL, DIGEST, NOW)


def test_another_names_email_need_not_be_verified() -> None:
    assert mapped({"email_verified": False}).user == "oidc:jane"


def test_uid_and_extra_come_from_claims() -> None:
    extra = (ExtraClaim("example.org/team", "team"), ExtraClaim("example.org/none", "none"))
    found = mapped({"oid": "u-1", "team": ["a", "", "b"], "none": ""}, uid="oid", extra=extra)
    assert found.uid == "u-1"
    assert found.extra[0] == ("example.org/team", ("a", "b"))
    assert [key for key, _ in found.extra] == ["example.org/team", "authentication.kubernetes.io/credential-id"]


@pytest.mark.parametrize("claims", [{}, {"oid": 7}, {"oid": None}])
def test_a_uid_that_is_no_text_refuses_the_token(claims: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationFailed, match="oid"):
        mapped(claims, uid="oid")


@pytest.mark.parametrize("claims", [{}, {"team": 7}, {"team": [True]}, {"team": {"a": "b"}}])
def test_an_extra_that_cannot_be_had_refuses_the_token(claims: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationFailed, match="team"):
        mapped(claims, extra=(ExtraClaim("example.org/team", "team"),))


@pytest.mark.parametrize("jti", [None, "", 7, ["t1"], "x" * 257])
def test_without_a_usable_jti_a_digest_stands_for_the_token(jti: Any) -> None:
    found = mapped({"jti": jti} if jti is not None else {})
    assert found.credential_id == f"JWTSHA256={DIGEST}"


def test_the_same_jti_of_two_issuers_is_two_credentials() -> None:
    other = dataclasses.replace(ISSUER, url="https://other.test")
    first, second = (identity_of({"sub": "jane", "jti": "t"}, one, DIGEST, NOW) for one in (ISSUER, other))
    assert (first.source, first.credential_id) != (second.source, second.credential_id)


@pytest.mark.parametrize(
    ("claims", "passes"),
    [
        ({"hd": "example.com"}, True),
        ({"hd": "example.org"}, False),
        ({"hd": ["example.com"]}, False),
        ({"hd": None}, False),
        ({}, False),
    ],
)
def test_a_required_claim_is_compared_as_text(claims: dict[str, Any], passes: bool) -> None:
    issuer = dataclasses.replace(ISSUER, required=(("hd", "example.com"),))
    if passes:
        check_required(claims, issuer)
        return
    with pytest.raises(AuthenticationFailed, match="hd") as caught:
        check_required(claims, issuer)
    assert "example" not in caught.value.reason


def test_a_required_empty_text_must_be_there() -> None:
    issuer = dataclasses.replace(ISSUER, required=(("hd", ""),))
    check_required({"hd": ""}, issuer)
    with pytest.raises(AuthenticationFailed):
        check_required({}, issuer)


@pytest.mark.parametrize("aud", ["a", ["x", "b"]])
def test_one_of_the_audiences_will_do(aud: Any) -> None:
    check_audience({"aud": aud}, dataclasses.replace(ISSUER, audiences=("a", "b")))


@pytest.mark.parametrize("value", [True, "1800000600", None, [], 1e12, float("inf"), float("nan")])
def test_a_time_is_a_number(value: Any) -> None:
    with pytest.raises(AuthenticationFailed, match="exp is not a time"):
        check_times({"exp": value}, NOW)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_the_clocks_may_differ_by_ten_seconds(claim: str) -> None:
    assert check_times({"exp": NOW + 60, claim: NOW + SKEW}, NOW) == NOW + 60 + SKEW
    with pytest.raises(AuthenticationFailed, match=claim):
        check_times({"exp": NOW + 60, claim: NOW + SKEW + 0.5}, NOW)
    assert check_times({"exp": NOW}, NOW + SKEW - 0.5)
    with pytest.raises(AuthenticationFailed, match="expired"):
        check_times({"exp": NOW}, NOW + SKEW)
