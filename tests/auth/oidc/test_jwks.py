"""Key sets: which keys of a published set are used, and for what."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, x25519
from hypothesis import given
from hypothesis import strategies as st

from auth.oidc.jwks import ALGORITHMS, MOST_KEYS, BadKeySet, parse_key_set
from tests.support.oidc_issuer import jwk, key_set, rsa_key

RSA = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
P256 = ec.generate_private_key(ec.SECP256R1())


def algorithms(*members: dict[str, Any]) -> list[set[str]]:
    return [set(key.algorithms) for key in parse_key_set(key_set(*members)).keys]


def test_a_keys_kind_decides_on_its_algorithms() -> None:
    assert algorithms(jwk(rsa_key())) == [RSA]
    assert algorithms(jwk(P256)) == [{"ES256"}]
    assert algorithms(jwk(ec.generate_private_key(ec.SECP384R1()))) == [{"ES384"}]
    assert algorithms(jwk(ec.generate_private_key(ec.SECP521R1()))) == [{"ES512"}]
    assert algorithms(jwk(ed25519.Ed25519PrivateKey.generate())) == [{"EdDSA"}]
    assert {"none", "HS256", "HS384", "HS512", "ES256K"} & ALGORITHMS == set()


def test_an_alg_narrows_them() -> None:
    assert algorithms(jwk(rsa_key(), alg="PS384")) == [{"PS384"}]
    for alg in ("ES256", "HS256", "RSA-OAEP", "none", "", None, ["RS256"]):
        assert algorithms(jwk(rsa_key(), alg=alg)) == []


@pytest.mark.parametrize(
    "member",
    [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "alg": "HS256"},
        jwk(rsa_key(), use="enc"),
        jwk(rsa_key(), key_ops=["encrypt"]),
        jwk(rsa_key(), key_ops="verify"),
        jwk(rsa_key(9, 1024)),
        jwk(rsa_key(), kid=7),
        jwk(rsa_key(), n=7),
        jwk(rsa_key(), n="!"),
        jwk(rsa_key(), e="AQ"),
        jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key(), as_dict=True) | {"key_ops": ["verify"]},
        jwk(ec.generate_private_key(ec.SECP256K1())),
        jwk(P256, x="AAAA"),
        jwk(P256, crv="P-384"),
        jwk(P256, crv=None),
        jwt.algorithms.OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True)
        | {"key_ops": ["verify"]},
        {"kty": "OKP", "crv": "X25519", "x": x25519.X25519PrivateKey.generate().public_key().public_bytes_raw().hex()},
        {"kty": "RSA"},
        {"kty": ["RSA"]},
        {},
    ],
)
def test_what_cannot_be_used_is_passed_over(member: dict[str, Any]) -> None:
    good = jwk(P256, kid="good")
    assert [key.kid for key in parse_key_set(key_set(member, good)).keys] == ["good"]


def test_a_published_private_key_costs_nothing() -> None:
    began = time.process_time()
    modulus, private = (f"A{'_' * 2994}{last}" for last in "85")  # 18 000 bits: to find its primes takes seconds
    assert algorithms({"kty": "RSA", "n": modulus, "e": "Aw", "d": private}) == []
    assert algorithms({"kty": "RSA", "n": modulus, "e": "Aw"}) == []
    assert time.process_time() - began < 1


def test_keys_are_found_by_name_and_without_one_all_are_meant() -> None:
    keys = parse_key_set(key_set(jwk(rsa_key(), kid="a"), jwk(P256, kid="a"), jwk(P256)))
    assert len(keys.named("a")) == 2
    assert keys.named("b") == ()
    assert len(keys.named(None)) == 3


def test_a_key_verifies_by_its_own_algorithms_only() -> None:
    (key,) = parse_key_set(key_set(jwk(rsa_key(), alg="RS256"))).keys
    signature = rsa_key().sign(b"text", padding.PKCS1v15(), hashes.SHA256())
    assert key.verifies("RS256", b"text", signature)
    assert not key.verifies("RS256", b"other", signature)
    longer = rsa_key().sign(b"text", padding.PKCS1v15(), hashes.SHA384())
    assert not key.verifies("RS384", b"text", longer)
    assert not key.verifies("HS256", b"text", signature)


def test_a_signature_of_any_length_is_only_wrong() -> None:
    for member in (jwk(rsa_key()), jwk(P256), jwk(ed25519.Ed25519PrivateKey.generate())):
        (key,) = parse_key_set(key_set(member)).keys
        for length in (0, 1, 63, 64, 65, 256, 5000):
            for algorithm in key.algorithms:
                assert not key.verifies(algorithm, b"text", b"\0" * length)


def test_a_set_may_be_empty() -> None:
    assert parse_key_set(key_set()).keys == ()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"{}", "no list"),
        (b'{"keys": {}}', "no list"),
        (b'{"keys": [7]}', "no list"),
        (b'{"keys": [], "keys": []}', "twice"),
        (json.dumps({"keys": [{}] * (MOST_KEYS + 1)}).encode(), "more than 64"),
    ],
)
def test_what_is_no_set_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadKeySet, match=reason):
        parse_key_set(data)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=6), st.lists, max_leaves=4)


@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "n", "e", "x", "y", "kid", "alg", "use", "key_ops"]),
        JSON | st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "AQAB", "sig"]),
    )
)
def test_no_member_breaks_the_reader(member: dict[str, Any]) -> None:
    for key in parse_key_set(key_set(member)).keys:
        assert key.algorithms
