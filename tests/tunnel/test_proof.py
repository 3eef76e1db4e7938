"""A proof is good for exactly what it binds."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tunnel import proof
from tunnel.handshake import MAX_SIGNATURE

KEY = b"k" * 32
ENROL: dict[str, Any] = {
    "key": KEY, "challenge": "c", "hello": "h", "epoch": 1, "server": "s", "name": "n", "cluster": "b",
    "cluster_id": "i", "instance": "x", "csr": "r",
}  # fmt: skip
SHARED: dict[str, Any] = {
    "challenge": "c", "hello": "h", "epoch": 1, "server": "s", "name": "n", "cluster": "b", "cluster_id": "i",
    "instance": "x", "certificate": b"d",
}  # fmt: skip
OWN: dict[str, Any] = {
    "key": KEY, "challenge": "c", "hello": "h", "epoch": 1, "server": "s", "name": "n", "session": "e", "link_id": 1,
}  # fmt: skip
SUPERSEDE: dict[str, Any] = {"key": KEY, "challenge": "c", "hello": "h", "session": "e"}
PROOFS: dict[str, tuple[Any, dict[str, Any]]] = {
    "enrol": (proof.enrol, ENROL),
    "shared": (lambda **fields: proof.shared(**fields).decode(), SHARED),
    "own": (proof.own, OWN),
    "supersede": (proof.supersede, SUPERSEDE),
}
FIELDS = [(kind, field) for kind, (_, fields) in PROOFS.items() for field in fields]


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_each_field_changes_it(kind: str, field: str) -> None:
    sign, fields = PROOFS[kind]
    value = fields[field]
    other = value + (b"2" if isinstance(value, bytes) else "2" if isinstance(value, str) else 1)
    assert not proof.matches(sign(**fields), sign(**fields | {field: other}))
    assert proof.matches(sign(**fields), sign(**fields))


@pytest.mark.parametrize("kind", PROOFS)
def test_what_stands_between_two_fields_matters(kind: str) -> None:
    """No byte can wander from one field into its neighbour: a field has no line break (see tunnel.messages.text)."""
    sign, fields = PROOFS[kind]
    assert sign(**fields | {"challenge": "ch", "hello": ""}) != sign(**fields | {"challenge": "c", "hello": "h"})


def test_one_kind_of_proof_is_not_another() -> None:
    assert len({sign(**fields) for sign, fields in PROOFS.values()}) == 4


def test_a_replay_answers_another_challenge() -> None:
    heard = proof.enrol(**ENROL)
    assert not proof.matches(proof.enrol(**ENROL | {"challenge": "another nonce"}), heard)


def test_the_lines_are_those_of_the_page() -> None:
    lines = b"kulvert own v1\nc\nh\n1\ns\nn\ne\n1"
    assert proof.own(**OWN) == proof.encode(hmac.digest(KEY, lines, hashlib.sha256))
    hashed = proof.encode(hashlib.sha256(b"r").digest()).encode()
    lines = b"kulvert enrol v1\nc\nh\n1\ns\nn\nb\ni\nx\n" + hashed
    assert proof.enrol(**ENROL) == proof.encode(hmac.digest(KEY, lines, hashlib.sha256))
    hashed = proof.encode(hashlib.sha256(b"d").digest()).encode()
    assert proof.shared(**SHARED) == b"kulvert shared v2\nc\nh\n1\ns\nn\nb\ni\nx\n" + hashed


KEYS = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_signature_is_good_for_its_key_and_its_text(key: proof.PrivateKey) -> None:
    given = proof.sign(key, b"text")
    assert len(given) <= MAX_SIGNATURE
    assert proof.signed(key.public_key(), b"text", given)
    assert not proof.signed(key.public_key(), b"texts", given)
    for other in (ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()):
        assert not proof.signed(other.public_key(), b"text", given)
    for wrong in ("", "A", "+/+/", given[:-4], "x" * 86, "ü"):
        assert not proof.signed(key.public_key(), b"text", wrong)


def test_the_join_key_is_hkdf() -> None:
    expected = HKDF(SHA256(), 32, b"token-1", b"kulvert join v1").derive(b"secret")
    assert proof.join_key("token-1", b"secret") == expected
    assert proof.join_key("token-2", b"secret") != expected


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\xff" * 32, bytes(range(256))])
def test_base64url(raw: bytes) -> None:
    assert proof.decode(proof.encode(raw)) == raw
    assert not set(proof.encode(raw)) & set("+/=")


@pytest.mark.parametrize("text", ["a", "+/+/", "ab c", "äöü="])
def test_what_is_no_base64url(text: str) -> None:
    with pytest.raises(ValueError):
        proof.decode(text)


def test_matching_takes_any_text() -> None:
    assert not proof.matches("abc", "grüße")
    assert not proof.matches("abc", "")


ID = "abcdefghij234567"
TOKEN = f"kvt_{ID}.{proof.encode(bytes(range(32)))}"


def test_a_join_token() -> None:
    assert proof.parse_join_token(TOKEN) == (ID, bytes(range(32)))


@pytest.mark.parametrize("text", ["", TOKEN[:-1], TOKEN + "A", TOKEN + "\n", " " + TOKEN, TOKEN.upper(), f'"{TOKEN}"'])
def test_what_is_no_join_token_is_not_quoted(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        proof.parse_join_token(text)
    assert TOKEN[25:40] not in str(caught.value)
