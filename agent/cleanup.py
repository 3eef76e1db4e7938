"""What the agent removes of its own cluster when the server asks: first what Kulvert made there, at last itself.

Only objects that bear Kulvert's label go, each by its uid, and only where a role allows it: without the optional role
the answer says what is left, and a person deletes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from agent.pool import UpstreamPool
from agent.question import Reply, ask
from tunnel.calls import CallFailed, Method, Params
from tunnel.errors import ExchangeReset

CLEANUP: Final = "cluster.cleanup"
UNINSTALL: Final = "cluster.uninstall"
LABEL: Final = "app.kubernetes.io/managed-by"
OWNER: Final = "kulvert"
NAME: Final = "app.kubernetes.io/name"
AGENT: Final = "kulvert-agent"
REMOVER: Final = "kulvert-agent-uninstall"
"""The optional role that lets the agent take itself away."""
NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
MOST: Final = 200
"""Names in an answer."""
_PAGE: Final = 50
_PAGES: Final = 100
_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
_KINDS: Final = {
    "ServiceAccount": "/api/v1/serviceaccounts",
    "RoleBinding": f"{_RBAC}/rolebindings",
    "Role": f"{_RBAC}/roles",
    "ClusterRoleBinding": f"{_RBAC}/clusterrolebindings",
    "ClusterRole": f"{_RBAC}/clusterroles",
}
"""What Kulvert makes in a cluster, and what it is bound by last."""
_SELECTOR: Final = quote(f"{LABEL}={OWNER},{NAME}!={AGENT}")
_KNOWN: Final = re.compile(r"ServiceAccount ([a-z0-9][-a-z0-9]{0,62})/([a-z0-9][-a-z0-9.]{0,252})")


@dataclass(slots=True)
class Report:
    """What was deleted, what is left and why, and which kinds could not be looked at."""

    deleted: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def params(self) -> Params:
        """For the server."""
        return {"deleted": self.deleted[:MOST], "left": self.left[:MOST], "unseen": self.unseen[:MOST]}


class Cleanup:
    """Answers the server's calls, with the agent's own credential."""

    def __init__(self, questions: UpstreamPool, namespace: str, timeout: float = 10.0) -> None:
        self._questions = questions
        self._namespace = namespace
        self._timeout = timeout

    def methods(self) -> Mapping[str, Method]:
        """For the session (`tunnel.calls`)."""
        return {CLEANUP: self.cleanup, UNINSTALL: self.uninstall}

    async def cleanup(self, params: Params) -> Params:
        """Deletes what Kulvert made in this cluster, but for the agent itself. `known` names what the server has had
        made, for an agent that may not list. Raises CallFailed.
        """
        report = Report()
        known = params.get("known", [])
        for one in known if isinstance(known, list) else []:
            if isinstance(one, str) and (match := _KNOWN.fullmatch(one)):
                path = f"/api/v1/namespaces/{match[1]}/serviceaccounts/{match[2]}"
                await self._delete_ours(report, one, path, agent=False)
        for kind, collection in _KINDS.items():
            await self._delete_listed(report, kind, collection)
        return report.params()

    async def uninstall(self, params: Params) -> Params:
        """Deletes the agent: what it may in the cluster, then its namespace. It answers before its pod ends. Raises
        CallFailed.
        """
        report = Report()
        for kind in ("ClusterRoleBinding", "ClusterRole"):
            await self._delete_ours(report, f"{kind} {AGENT}", f"{_KINDS[kind]}/{AGENT}", agent=True)
        await self._delete_remover(report)
        namespace = f"/api/v1/namespaces/{self._namespace}"
        await self._delete_ours(report, f"Namespace {self._namespace}", namespace, agent=True)
        return report.params()

    async def _delete_remover(self, report: Report) -> None:
        """The role that allows all this cannot be deleted after its binding, nor before: so it is made to belong to
        its binding, and the cluster's garbage collector takes it along.
        """
        role, binding = f"{_KINDS['ClusterRole']}/{REMOVER}", f"{_KINDS['ClusterRoleBinding']}/{REMOVER}"
        found, bound = await self._object(role), await self._object(binding)
        adopted = False
        if bound is not None and found is not None and _ours(found, agent=True):
            metadata = bound["metadata"]
            owner = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding"}
            owner |= {"name": metadata["name"], "uid": metadata["uid"]}
            found["metadata"]["ownerReferences"] = [owner]
            adopted = (await self._ask(b"PUT", role, found)).status == 200
        await self._delete_ours(report, f"ClusterRoleBinding {REMOVER}", binding, agent=True)
        if adopted:
            report.deleted.append(f"ClusterRole {REMOVER}")
        else:
            await self._delete_ours(report, f"ClusterRole {REMOVER}", role, agent=True)

    async def _delete_listed(self, report: Report, kind: str, collection: str) -> None:
        """All objects of a kind with Kulvert's label, page by page."""
        more = ""
        for _ in range(_PAGES):
            reply = await self._ask(b"GET", f"{collection}?labelSelector={_SELECTOR}&limit={_PAGE}{more}")
            if reply.status != 200:
                report.unseen.append(f"{kind}: the API server answered {reply.status}")
                return
            page = _json(reply)
            for item in page.get("items") or []:
                where = item["metadata"].get("namespace")
                name = item["metadata"]["name"]
                path = collection if where is None else _within(collection, where)
                text = f"{kind} {where}/{name}" if where else f"{kind} {name}"
                await self._delete(report, text, f"{path}/{quote(name, safe='')}", _uid(item))
            following = (page.get("metadata") or {}).get("continue")
            if not following:
                return
            more = f"&continue={quote(following, safe='')}"
        report.unseen.append(f"{kind}: there are too many")

    async def _delete_ours(self, report: Report, text: str, path: str, *, agent: bool) -> None:
        """One by its name, if it is there and bears our label."""
        reply = await self._ask(b"GET", path)
        if reply.status == 404:
            return
        if reply.status != 200:
            report.left.append(f"{text} (the API server answered {reply.status} when asked for it)")
            return
        found = _json(reply)
        if _ours(found, agent=agent):
            await self._delete(report, text, path, _uid(found))
        else:
            report.left.append(f"{text} (it does not bear the label {LABEL}={OWNER})")

    async def _delete(self, report: Report, text: str, path: str, uid: str) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        reply = await self._ask(b"DELETE", path, body)
        held = (_json(reply).get("metadata") or {}).get("finalizers") if reply.status in (200, 202) else None
        if held:
            report.left.append(f"{text} (it goes when its finalizers are taken off)")
        elif reply.status in (200, 202, 404):
            report.deleted.append(text)
        else:
            report.left.append(f"{text} (the API server answered {reply.status})")

    async def _object(self, path: str) -> dict[str, Any] | None:
        reply = await self._ask(b"GET", path)
        return _json(reply) if reply.status == 200 else None

    async def _ask(self, method: bytes, path: str, body: dict[str, Any] | None = None) -> Reply:
        content = json.dumps(body).encode() if body is not None else b""
        try:
            return await ask(self._questions, path.encode(), self._timeout, method, content)
        except ExchangeReset as error:
            raise CallFailed("unreachable", f"the API server: {error.message}") from error


def own_namespace(file: Path = NAMESPACE_FILE) -> str:
    """The agent's namespace: its pod's, or where it is not in one, the one that `kulvert cluster join` makes."""
    try:
        return file.read_text().strip() or OWNER
    except (OSError, UnicodeDecodeError):
        return OWNER


def _within(collection: str, namespace: str) -> str:
    base, _, plural = collection.rpartition("/")
    return f"{base}/namespaces/{quote(namespace, safe='')}/{plural}"


def _json(reply: Reply) -> dict[str, Any]:
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CallFailed("unreachable", "the API server's answer is no JSON object")
    return found


def _ours(found: dict[str, Any], *, agent: bool) -> bool:
    labels = (found.get("metadata") or {}).get("labels") or {}
    return labels.get(LABEL) == OWNER and (labels.get(NAME) == AGENT) is agent


def _uid(found: dict[str, Any]) -> str:
    return str(found["metadata"]["uid"])
