"""Service accounts of managed clusters: only that very cluster's keys, audience and path make one."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.utils import base64url_encode

from auth.authenticator import AuthenticationFailed
from auth.chain import AuthenticatorChain
from auth.clustertokens import SOURCE, ClusterTokenAuthenticator, PinnedIssuer
from auth.identity import Credentials, Identity
from auth.oidc.jwks import parse_key_set

ISSUER = "https://kubernetes.default.svc"
NOW = 1_000_000.0
EDGE = rsa.generate_private_key(65537, 2048)
OTHER = ec.generate_private_key(ec.SECP256R1())
KEYS: dict[str, tuple[str, Any]] = {"edge": ("RS256", EDGE), "other": ("ES256", OTHER)}
KEYS["third"] = ("ES256", ec.generate_private_key(ec.SECP256R1()))


def jwks(*names: str, kid: str = "") -> bytes:
    def member(name: str) -> dict[str, Any]:
        algorithm, key = KEYS[name]
        maker: Any = RSAAlgorithm if algorithm == "RS256" else ECAlgorithm
        found: dict[str, Any] = json.loads(maker.to_jwk(key.public_key()))
        return found | {"kid": kid or f"{name}-1", "use": "sig", "alg": algorithm}

    return json.dumps({"keys": [member(name) for name in names]}).encode()


def pinned(*names: str, audience: str = ISSUER, kid: str = "") -> PinnedIssuer:
    return PinnedIssuer(ISSUER, frozenset({audience}), parse_key_set(jwks(*names, kid=kid)))


class Pins(dict[str, PinnedIssuer]):
    """`PinnedKeys`."""


def claims(**changes: Any) -> dict[str, Any]:
    account = {"namespace": "ci", "serviceaccount": {"name": "deployer", "uid": "u-1"}}
    told = {
        "iss": ISSUER, "sub": "system:serviceaccount:ci:deployer", "aud": [ISSUER], "jti": "j-1",
        "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 600, "kubernetes.io": account,
    }  # fmt: skip
    return {key: value for key, value in (told | changes).items() if value is not None}


def signed(name: str = "edge", kid: str | None = None, algorithm: str | None = None, **changes: Any) -> str:
    alg, key = KEYS[name]
    headers = {"kid": kid if kid is not None else f"{name}-1"}
    return jwt.encode(claims(**changes), key, algorithm or alg, headers=headers)


def asked(token: str, cluster: str = "edge-7", pins: Mapping[str, PinnedIssuer] | None = None) -> Identity | None:
    known = Pins(pins if pins is not None else {"edge-7": pinned("edge"), "b": pinned("other")})
    return ClusterTokenAuthenticator(known).authenticate(Credentials(f"Bearer {token}".encode()), NOW, cluster)


def refused(token: str, cluster: str = "edge-7") -> str:
    with pytest.raises(AuthenticationFailed) as caught:
        asked(token, cluster)
    assert token not in caught.value.reason
    return caught.value.reason


def test_a_clusters_own_service_account_is_known_on_the_way_to_it() -> None:
    identity = asked(signed())
    assert identity is not None
    assert (identity.user, identity.uid) == ("system:serviceaccount:ci:deployer", "u-1")
    assert identity.groups == ("system:serviceaccounts", "system:serviceaccounts:ci")
    assert (identity.cluster, identity.source, identity.credential_id) == ("edge-7", SOURCE, "JTI=j-1")
    assert NOW + 600 <= identity.expires <= NOW + 630
    assert asked(signed("other"), "b") is not None


def test_at_another_clusters_path_it_is_nobodys_though_both_issuers_have_one_name() -> None:
    assert asked(signed("edge"), "b") is None
    assert asked(signed("other"), "edge-7") is None
    chain = AuthenticatorChain([ClusterTokenAuthenticator(Pins({"edge-7": pinned("edge"), "b": pinned("other")}))])
    credentials = Credentials(f"Bearer {signed('other')}".encode())
    assert chain.authenticate(credentials, NOW, "b").cluster == "b"
    for elsewhere in ("edge-7", "", "nowhere"):
        with pytest.raises(AuthenticationFailed):
            chain.authenticate(credentials, NOW, elsewhere)


def test_another_clusters_key_of_the_same_name_signs_nothing_here() -> None:
    assert "signature" in refused(signed("other", kid="edge-1"))


def test_kulverts_own_api_and_unknown_clusters_know_none() -> None:
    assert asked(signed(), "") is None
    assert asked(signed(), "unknown") is None


@pytest.mark.parametrize("kid", ["", "unknown"])
def test_what_no_pinned_key_is_named_by_is_left_to_the_others(kid: str) -> None:
    """The hub's tokens, for one, may name the same issuer."""
    assert asked(signed(kid=kid)) is None


def test_another_issuer_and_no_token_at_all_are_left_to_the_others() -> None:
    assert asked(signed(iss="https://login.example")) is None
    assert asked("opaque") is None
    assert ClusterTokenAuthenticator(Pins({"a": pinned("edge")})).authenticate(Credentials(None), NOW, "a") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["vault"]}, {"aud": "vault"}, {"aud": None}, {"aud": []}, {"aud": 5}, {"aud": [5]},
        {"exp": NOW - 60}, {"exp": None}, {"exp": "soon"}, {"nbf": NOW + 60}, {"iat": NOW + 60},
        {"sub": "system:serviceaccount:kube-system:deployer"}, {"sub": "admin"}, {"sub": None},
        {"kubernetes.io": None}, {"kubernetes.io": {"namespace": "ci"}}, {"kubernetes.io": "x"},
        {"kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "deployer"}}},
        {"kubernetes.io": {"namespace": "a:b", "serviceaccount": {"name": "c", "uid": "u"}},
         "sub": "system:serviceaccount:a:b:c"},
    ],
)  # fmt: skip
def test_what_the_cluster_would_refuse_does_not_get_there(changes: dict[str, Any]) -> None:
    assert refused(signed(**changes))


def test_a_tampered_token_is_refused() -> None:
    head, _, signature = signed().split(".")
    body = signed(sub="system:serviceaccount:kube-system:admin").split(".")[1]
    assert "signature" in refused(f"{head}.{body}.{signature}")


def unsigned(algorithm: str) -> str:
    """A token's first two parts."""
    parts = ({"alg": algorithm, "typ": "JWT", "kid": "edge-1"}, claims())
    return ".".join(base64url_encode(json.dumps(part).encode()).decode() for part in parts)


@pytest.mark.parametrize("encoding", [serialization.Encoding.DER, serialization.Encoding.PEM])
def test_a_public_key_is_no_secret(encoding: serialization.Encoding) -> None:
    public = EDGE.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = unsigned("HS256")
    made = base64url_encode(hmac.digest(public, text.encode(), "sha256")).decode()
    assert "algorithm" in refused(f"{text}.{made}")


def test_none_is_no_algorithm_nor_is_one_that_no_api_server_uses() -> None:
    assert "algorithm" in refused(unsigned("none") + ".")
    assert "algorithm" in refused(signed(algorithm="PS256"))


def test_a_key_set_that_names_no_algorithms_opens_no_others() -> None:
    keys = json.loads(jwks("edge"))
    del keys["keys"][0]["alg"]
    pins = {"edge-7": PinnedIssuer(ISSUER, frozenset({ISSUER}), parse_key_set(json.dumps(keys).encode()))}
    assert asked(signed(), pins=pins) is not None
    with pytest.raises(AuthenticationFailed, match="no API server"):
        asked(signed(algorithm="PS256"), pins=pins)


def test_the_audience_is_the_clusters_own() -> None:
    pins = {"edge-7": pinned("edge", audience="https://api.edge-7")}
    assert asked(signed(aud=["https://api.edge-7", "x"]), pins=pins) is not None
    with pytest.raises(AuthenticationFailed):
        asked(signed(), pins=pins)


def test_a_token_for_the_hubs_audience_is_left_to_the_hub_whose_keys_may_be_pinned_too() -> None:
    known = ClusterTokenAuthenticator(Pins({"edge-7": pinned("edge")}), frozenset({"kulvert"}))

    def told(**changes: Any) -> Identity | None:
        return known.authenticate(Credentials(f"Bearer {signed(**changes)}".encode()), NOW, "edge-7")

    assert told(aud=["kulvert"]) is None
    assert told(aud=["kulvert", ISSUER]) is None
    assert told() is not None
    for changes in ({"aud": ["vault"]}, {"aud": ["kulvert"], "exp": NOW - 3600}):
        with pytest.raises(AuthenticationFailed):
            told(**changes)
