"""Service accounts that the server has made here, and bounded tokens for them (TokenRequest): off by default.

The agent makes, gives tokens for and deletes such service accounts alone as bear a label of their own: the server can
never ask for a token of one that somebody else has made, least of all of the agent's, which bears Kulvert's other
labels. It does so with its own credential, and needs a role for it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from agent.policyrules import PolicyRules
from agent.pool import PoolLimits, UpstreamPool
from agent.question import Reply, ask
from tunnel.calls import CallFailed, Method, Params
from tunnel.errors import ExchangeReset

TOKEN: Final = "serviceaccount.token"  # noqa: S105 -- a method's name
DELETE: Final = "serviceaccount.delete"
LABEL: Final = "kulvert.dev/managed-serviceaccount"
LABELS: Final = {"app.kubernetes.io/managed-by": "kulvert", LABEL: "true"}
"""The first is on all that Kulvert makes, so that it is found when Kulvert goes; the second is the permission."""
SECONDS: Final = (600, 86_400)
"""kube-apiserver gives none for less; for more than a day nobody should need one that is rotated."""
AUDIENCES: Final = 8
CALLS_POOL: Final = PoolLimits(connections=4, idle=1, dials=2, waiting=64, dial_timeout=5.0)
"""A pool of its own, for calls of the server's and reports to it: the question for health does not wait behind them."""

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_ROLE = "it needs the role of charts/agent-serviceaccounts-rbac.yaml"


@dataclass(frozen=True, slots=True)
class Account:
    """Which service account is meant."""

    namespace: str
    name: str

    @property
    def user(self) -> str:
        """As the API server knows it."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    @property
    def collection(self) -> bytes:
        """The path of all service accounts of its namespace."""
        return f"/api/v1/namespaces/{self.namespace}/serviceaccounts".encode()

    @property
    def path(self) -> bytes:
        """Its own path."""
        return self.collection + b"/" + self.name.encode()


@dataclass(frozen=True, slots=True)
class TokenOrder:
    """A token to be made: for whom, for which audiences (none: the API server's own), for how long."""

    account: Account
    audiences: tuple[str, ...]
    seconds: int


class ServiceAccounts:
    """Answers the server's calls. `rules` are the owner's: where nothing may be changed, nothing is made."""

    def __init__(
        self, questions: UpstreamPool, rules: PolicyRules | None, enabled: bool, timeout: float = 10.0
    ) -> None:
        self._questions = questions
        self._rules = rules
        self._enabled = enabled
        self._timeout = timeout

    def methods(self) -> Mapping[str, Method]:
        """For the session (`tunnel.calls`)."""
        return {TOKEN: self.token, DELETE: self.delete}

    async def token(self, params: Params) -> Params:
        """Makes the service account if need be, and a token for it. Raises CallFailed."""
        order = _order(params)
        account = order.account
        self._check(account, (b"POST", account.collection), (b"POST", account.path + b"/token"))
        uid = await self._made(account)
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": list(order.audiences), "expirationSeconds": order.seconds},
        }
        answer = await self._ask(b"POST", account.path + b"/token", request)
        token, expires = _issued(_expect(answer, 201, "a token"))
        if _uid_of(token) != uid:
            raise CallFailed("changed", "the service account was made anew in the meantime: ask again")
        return {"token": token, "expires": expires, "uid": uid}

    async def delete(self, params: Params) -> Params:
        """Deletes the service account, and with it all its tokens. Raises CallFailed."""
        account = _account(params)
        self._check(account, (b"DELETE", account.path))
        found = await self._found(account)
        if found is None:
            return {"deleted": False}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": _managed(found, account)}}
        answer = await self._ask(b"DELETE", account.path, options)
        if answer.status == 404:
            return {"deleted": False}
        _expect(answer, 200, "the deletion of a service account")
        return {"deleted": True}

    def _check(self, account: Account, *asked: tuple[bytes, bytes]) -> None:
        """The owner's rules hold for the agent's own requests as for a user's."""
        if not self._enabled:
            raise CallFailed("disabled", "this cluster's agent manages no service accounts (managedServiceAccounts)")
        authorization = self._questions.access.authorization(self._questions.now()) or b""
        if _claims(authorization.decode("ascii", "replace")).get("sub") == account.user:
            raise CallFailed("foreign", "this is the agent's own service account")
        refusals = [self._rules.of_request(*one, upgrade=False) for one in asked] if self._rules is not None else []
        if refusal := next(filter(None, refusals), None):
            raise CallFailed("policy", f"this cluster's agent refuses it: {refusal}")

    async def _made(self, account: Account) -> str:
        """The uid of a service account that is ours, made now where there was none."""
        found = await self._found(account)
        if found is None:
            manifest = {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": account.name, "namespace": account.namespace, "labels": LABELS},
                "automountServiceAccountToken": False,
            }
            answer = await self._ask(b"POST", account.collection, manifest)
            if answer.status == 404:
                raise CallFailed("namespace", f"there is no namespace {account.namespace!r}: make it first")
            found = _expect(answer, 201, "a service account")
        return _managed(found, account)

    async def _found(self, account: Account) -> dict[str, Any] | None:
        answer = await self._ask(b"GET", account.path)
        return None if answer.status == 404 else _expect(answer, 200, "a service account")

    async def _ask(self, method: bytes, path: bytes, content: object = None) -> Reply:
        body = json.dumps(content).encode() if content is not None else b""
        try:
            return await ask(self._questions, path, self._timeout, method, body)
        except ExchangeReset as error:
            raise CallFailed("apiserver", f"the agent's API server: {error.message}") from None


def _managed(found: Mapping[str, Any], account: Account) -> str:
    """The uid of a service account that bears our label. Raises CallFailed for anybody else's."""
    metadata = found.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    labels = metadata.get("labels")
    if not isinstance(labels, dict) or labels.get(LABEL) != LABELS[LABEL]:
        text = f"the service account {account.namespace}/{account.name} is not Kulvert's to give out"
        raise CallFailed("foreign", f"{text} (it lacks the label {LABEL}): choose another name")
    uid = metadata.get("uid")
    if not isinstance(uid, str) or not uid:
        raise CallFailed("apiserver", "the API server's answer names no uid")
    return uid


def _expect(reply: Reply, status: int, what: str) -> dict[str, Any]:
    """The object in an answer. What the API server says in a failure is not repeated: it may say anything."""
    if reply.status in (401, 403):
        raise CallFailed("forbidden", f"the agent may not ask for {what}: {_ROLE}")
    if reply.status != status:
        raise CallFailed("apiserver", f"the API server answers {reply.status}, asked for {what}")
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CallFailed("apiserver", f"the API server's answer is no object, asked for {what}")
    return found


def _issued(answer: Mapping[str, Any]) -> tuple[str, float]:
    status = answer.get("status")
    token, until = (status.get("token"), status.get("expirationTimestamp")) if isinstance(status, dict) else ("", "")
    try:
        expires = datetime.fromisoformat(str(until)).timestamp()
    except ValueError:
        expires = 0.0
    if not isinstance(token, str) or not token.isascii() or not token or not expires:
        raise CallFailed("apiserver", "the API server's answer holds no token")
    return token, expires


def _uid_of(token: str) -> str:
    """Whose token it is, by its own word: the API server has made it just now."""
    bound = _claims(token).get("kubernetes.io")
    account = bound.get("serviceaccount") if isinstance(bound, dict) else None
    return str(account.get("uid", "")) if isinstance(account, dict) else ""


def _claims(token: str) -> dict[str, Any]:
    """What a token says; nothing of it is to be believed but by whoever knows where it is from."""
    parts = token.split(".")
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, IndexError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _account(params: Params) -> Account:
    namespace, name = params.get("namespace"), params.get("name")
    if not isinstance(namespace, str) or not _LABEL.fullmatch(namespace):
        raise CallFailed("invalid", "namespace is no name of a namespace")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise CallFailed("invalid", "name is no name of a service account")
    return Account(namespace, name)


def _order(params: Params) -> TokenOrder:
    account, audiences, seconds = _account(params), params.get("audiences", []), params.get("seconds")
    if not isinstance(audiences, list) or len(audiences) > AUDIENCES or not all(map(_is_audience, audiences)):
        raise CallFailed("invalid", f"audiences must be at most {AUDIENCES} texts")
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not SECONDS[0] <= seconds <= SECONDS[1]:
        raise CallFailed("invalid", f"seconds must be between {SECONDS[0]} and {SECONDS[1]}")
    return TokenOrder(account, tuple(audiences), seconds)


def _is_audience(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1_024 and value.isprintable()
