"""Signing keys over time: published before they sign, known as long as their tokens, and never none."""

from __future__ import annotations

import json
from dataclasses import replace

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auth.identity import Credentials
from auth.tokenkeys import KEPT, KeyRing, KeyRingError, SigningKey, jwk, read_ring
from auth.tokens import LONGEST, TokenAuthenticator, TokenSigner

NOW = 1_800_000_000.0
HOUR, DAY = 3600.0, 86_400.0
ISSUER = "https://kulvert.test"


def ring() -> KeyRing:
    return KeyRing(ISSUER, (SigningKey.new(NOW, NOW),))


def test_a_new_key_is_published_signs_and_is_known_until_its_tokens_are_over() -> None:
    first = ring()
    both = first.rotated(NOW + 10, HOUR)
    old, new = both.keys
    assert [both.phase(key, NOW + 10) for key in both.keys] == ["active", "published"]
    assert both.signing(NOW + 10 + HOUR - 1) is old
    assert both.signing(NOW + 10 + HOUR) is new
    assert [both.phase(key, NOW + 10 + HOUR) for key in both.keys] == ["retired", "active"]
    gone = both.gone(old)
    assert gone == NOW + 10 + HOUR + KEPT
    assert both.gone(new) is None
    assert both.pruned(gone - 1) is both
    assert both.pruned(gone).keys == (new,)


def test_one_key_that_waits_is_enough() -> None:
    both = ring().rotated(NOW, HOUR)
    assert both.rotated(NOW + 1, HOUR) is both
    assert len(both.rotated(NOW + HOUR, HOUR).keys) == 3


def test_a_successor_is_due_early_enough_to_be_published() -> None:
    first = ring()
    assert not first.due(NOW + 30 * DAY - HOUR - 1, 30 * DAY, HOUR)
    assert first.due(NOW + 30 * DAY - HOUR, 30 * DAY, HOUR)
    both = first.rotated(NOW + 30 * DAY - HOUR, HOUR)
    assert not both.due(NOW + 31 * DAY, 30 * DAY, HOUR)


def test_a_clock_that_was_set_back_finds_a_key() -> None:
    first = ring()
    assert first.signing(NOW - DAY) is first.keys[0]


def test_after_a_compromise_there_is_one_key_and_it_is_new() -> None:
    first = ring().rotated(NOW, HOUR)
    after = first.replaced(NOW + 1)
    assert len(after.keys) == 1
    assert after.keys[0] not in first.keys
    assert after.signing(NOW + 1) is after.keys[0]


def test_a_ring_is_read_as_it_was_written() -> None:
    both = ring().rotated(NOW, HOUR)
    again = read_ring(both.text())
    assert again.issuer == ISSUER
    assert [(k.created, k.active, k.verification.kid) for k in again.keys] == [
        (k.created, k.active, k.verification.kid) for k in both.keys
    ]


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"null", b'{"issuer":"x","keys":[]}', b'{"issuer":"x","keys":[{}]}', b"\xff"]
)
def test_what_is_no_ring_is_refused(text: bytes) -> None:
    with pytest.raises(KeyRingError, match="no signing keys"):
        read_ring(text)
    damaged = json.loads(ring().text())
    damaged["keys"][0]["pem"] = "planted"
    with pytest.raises(KeyRingError) as refused:
        read_ring(json.dumps(damaged).encode())
    assert "planted" not in str(refused.value)


def test_what_is_published_verifies_and_tells_no_secret() -> None:
    key = ring().keys[0]
    shown = jwk(key.verification)
    assert set(shown) == {"kty", "crv", "x", "y", "use", "alg", "kid"}
    token = TokenSigner(ISSUER, "kulvert", key.private).issue("jane", [], "", "t1", NOW, 60)
    assert jwt.get_unverified_header(token)["kid"] == shown["kid"]
    options = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(token, jwt.PyJWK(shown), audience="kulvert", options=options)  # type: ignore[arg-type] # a dict
    assert claims["sub"] == "jane"
    assert "private" not in repr(key)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.floats(0, 40 * DAY), min_size=1, max_size=6),
    lead=st.floats(0, DAY),
    issue=st.floats(0, 1),
    age=st.floats(0, LONGEST),
)
def test_every_token_is_good_to_its_end_however_keys_are_rotated(
    steps: list[float], lead: float, issue: float, age: float
) -> None:
    """Tokens of any moment, looked at any time within the longest life, through the ring as it is then."""
    now, rings = NOW, [(NOW, ring())]
    for step in steps:
        now += step
        rings.append((now, rings[-1][1].rotated(now, lead)))

    def at(moment: float) -> KeyRing:
        return [one for since, one in rings if since <= moment][-1].pruned(moment)

    issued = NOW + issue * (now - NOW)
    signing = at(issued).signing(issued)
    later = at(issued + age)
    assert signing.verification.kid in [key.verification.kid for key in later.keys]
    token = TokenSigner(ISSUER, "kulvert", signing.private).issue("jane", [], "", "t", issued, LONGEST)
    knows = TokenAuthenticator(ISSUER, "kulvert", [key.verification for key in later.keys])
    assert knows.authenticate(Credentials(b"Bearer " + token.encode()), issued + age - 1) is not None


def test_the_issuer_is_the_rings() -> None:
    assert replace(ring(), issuer="https://gw").rotated(NOW, HOUR).issuer == "https://gw"
