"""Taking tokens apart: one spelling, nothing demanded, nothing nested."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.oidc.token import MAX_BYTES, BadToken, issuer_of, read_token


def part(value: object) -> str:
    return encoded(json.dumps(value).encode())


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


HEADER = {"alg": "RS256", "kid": "k"}
BODY = part({"iss": "https://i.test"})


def token(header: Any = None, body: str = BODY, signature: str = "AAAA") -> str:
    return f"{part({**HEADER, **(header or {})})}.{body}.{signature}"


def test_a_token_is_taken_apart() -> None:
    found = read_token(token())
    assert (found.algorithm, found.kid, found.claims, found.signature) == (
        "RS256",
        "k",
        {"iss": "https://i.test"},
        b"\0\0\0",
    )
    assert found.signed == token().rpartition(".")[0].encode()


def test_what_it_holds_is_not_in_its_repr() -> None:
    assert "i.test" not in repr(read_token(token()))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt", "application/JWT"])
def test_tokens_of_users_are_taken(typ: str) -> None:
    assert read_token(token({"typ": typ})).kid == "k"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"typ": "logout+jwt"}, "type"),
        ({"typ": "kulvert-user+jwt"}, "type"),
        ({"typ": None}, "type"),
        ({"crit": ["exp"]}, "crit"),
        ({"crit": []}, "crit"),
        ({"b64": False}, "crit"),
        ({"cty": "JWT"}, "encrypted, or holds"),
        ({"enc": "A128GCM"}, "encrypted"),
        ({"zip": "DEF"}, "encrypted"),
        ({"alg": None}, "alg"),
        ({"alg": ["RS256"]}, "alg"),
        ({"kid": 7}, "kid"),
        ({"kid": ["k"]}, "kid"),
    ],
)
def test_what_a_header_may_not_say(header: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadToken, match=reason):
        read_token(token(header))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "a.b",
        "a.b.c.d.e",
        token(signature="A"),
        token(signature="AAAA=="),
        token(signature="AAA+"),
        token(signature="AA\nAA"),
        token(signature="AB"),  # the same byte as AA: four bits of it mean nothing
        token(body=BODY + "="),
        token(body=encoded(b'{"iss": "a", "iss": "a"}')),
        token(body=encoded(b"[]")),
        token(body=encoded(b"[" * 4000)),
    ],
)
def test_malformed_tokens_are_refused(text: str) -> None:
    with pytest.raises(BadToken):
        read_token(text)


def test_a_huge_token_is_refused_with_a_reason() -> None:
    huge = token(body=part({"iss": "https://i.test", "groups": ["g" * MAX_BYTES]}))
    assert issuer_of(huge) == "https://i.test"
    with pytest.raises(BadToken, match="larger than 16384 bytes: have its issuer"):
        read_token(huge)


@given(st.text() | st.builds(".".join, st.lists(st.binary(max_size=40).map(encoded), min_size=3, max_size=3)))
def test_whatever_it_is_it_is_read_or_refused(text: str) -> None:
    told = issuer_of(text)
    assert told is None or isinstance(told, str)
    with contextlib.suppress(BadToken):
        assert read_token(text).signed


@pytest.mark.parametrize("body", ["", "AAAA", encoded(b"[]"), encoded(b'{"iss": 1}'), encoded(b"[" * 100_000)])
def test_without_an_issuer_it_is_nobodys(body: str) -> None:
    assert issuer_of(f"e30.{body}.AAAA") is None
