"""Service accounts of a managed cluster, by the keys that are pinned for it: who may come with a token of its own.

An issuer's name says nothing here: every cluster may be `https://kubernetes.default.svc`. A token is a cluster's if
that very cluster's pinned keys have signed it, for that cluster's own audience; at any other cluster's path it is
nobody's, and never leaves the gateway. What it may do, the cluster itself decides: it gets the token, and no
impersonation.

Ask this one before the hub's TokenReview and before OIDC: what it does not know by issuer *and* key is left to them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from auth.authenticator import AuthenticationFailed
from auth.identity import Credentials, Identity, credential_extra
from auth.oidc.claims import check_times
from auth.oidc.jwks import KeySet
from auth.oidc.token import BadToken, Token, issuer_of, read_token

SOURCE: Final = "cluster-serviceaccount"
ALGORITHMS: Final = frozenset({"RS256", "ES256", "ES384", "ES512"})
"""What kube-apiserver signs with (k8s.io/kubernetes pkg/serviceaccount)."""
_PREFIX: Final = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class PinnedIssuer:
    """What a cluster's API server signs its service accounts' tokens as, and takes them for."""

    issuer: str
    audiences: frozenset[str]
    keys: KeySet


class PinnedKeys(Protocol):
    """gateway.membership.clusterkeys.ClusterKeys."""

    def get(self, cluster: str) -> PinnedIssuer | None:
        """What is pinned for a cluster, from memory."""
        ...


class ClusterTokenAuthenticator:
    """Knows the tokens of the cluster that a request goes to."""

    def __init__(self, pinned: PinnedKeys, hubs: frozenset[str] = frozenset()) -> None:
        """`hubs` are the audiences that the hub's TokenReview asks for. The hub may be a managed cluster too: then its
        keys are pinned, and a token for such an audience is left to the review, whatever else it is for: whose it is
        must not depend on the path that it was shown at first.
        """
        self._pinned = pinned
        self._hubs = hubs

    def authenticate(self, credentials: Credentials, now: float, cluster: str = "") -> Identity | None:
        """See `Authenticator`. None on the way to no cluster, and for a key that is not this cluster's."""
        pinned = self._pinned.get(cluster) if cluster else None
        text = credentials.bearer if pinned is not None else None
        if pinned is None or text is None or issuer_of(text) != pinned.issuer:
            return None
        try:
            token = read_token(text)
        except BadToken as bad:
            raise AuthenticationFailed(str(bad)) from None
        if not (token.kid and pinned.keys.named(token.kid)):
            return None  # the hub's own token, for one, may name the same issuer
        _verify(token, pinned)
        expires = check_times(token.claims, now)
        audiences = _audiences(token.claims)
        if not self._hubs.isdisjoint(audiences):
            return None
        if pinned.audiences.isdisjoint(audiences):
            raise AuthenticationFailed("the token is not for the API server of this cluster, but for another audience")
        return _identity(token.claims, cluster, expires, text)


def _verify(token: Token, pinned: PinnedIssuer) -> None:
    if token.claims.get("iss") != pinned.issuer:  # two readers of one text; they agree, or it ends here
        raise AuthenticationFailed("the token names another issuer on a second look")
    if token.algorithm not in ALGORITHMS:
        raise AuthenticationFailed("the token is signed by an algorithm that no API server uses")
    keys = pinned.keys.named(token.kid)
    if not any(key.verifies(token.algorithm, token.signed, token.signature) for key in keys):
        raise AuthenticationFailed("the token's signature is wrong, or its algorithm is not its key's")


def _audiences(claims: Mapping[str, Any]) -> list[str]:
    """A token for something else (a vault, another API) would be refused by the cluster: so it does not get there."""
    said = claims.get("aud")
    audiences = [said] if isinstance(said, str) else said
    if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
        raise AuthenticationFailed("the token says for no audience that it is for it")
    return audiences


def _identity(claims: Mapping[str, Any], cluster: str, expires: float, text: str) -> Identity:
    namespace, name, uid = _bound_to(claims)
    if claims.get("sub") != f"{_PREFIX}{namespace}:{name}":
        raise AuthenticationFailed("the token's subject is not the service account that it is bound to")
    jti = claims.get("jti")
    known = isinstance(jti, str) and jti
    credential_id = f"JTI={jti}" if known else "SHA256=" + hashlib.sha256(text.encode()).hexdigest()
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    extra = credential_extra(credential_id)
    return Identity(f"{_PREFIX}{namespace}:{name}", groups, uid, extra, SOURCE, credential_id, expires, cluster)


def _bound_to(claims: Mapping[str, Any]) -> tuple[str, str, str]:
    """(namespace, name, uid). The old tokens from Secrets have no such claim, nor an end: they are not taken."""
    bound = claims.get("kubernetes.io")
    account = bound.get("serviceaccount") if isinstance(bound, dict) else None
    if not isinstance(bound, dict) or not isinstance(account, dict):
        raise AuthenticationFailed("the token is no bound service account token: make one by TokenRequest")
    found = bound.get("namespace"), account.get("name"), account.get("uid")
    if not all(isinstance(one, str) and one and ":" not in one for one in found):
        raise AuthenticationFailed("the token's claims about its service account are malformed")
    namespace, name, uid = found
    return str(namespace), str(name), str(uid)
