"""The one object that `up` makes in a cluster of the user's own: it lets group kulvert:admins do everything there.

A label says that it is ours. One that an earlier `up` had to leave behind (kill -9, a lost network) is adopted, and
removed at the end; one of the same name that somebody else made is nobody's to touch.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

from cli.failures import Failed
from cli.up.apiclient import Object, Reply
from cli.up.request import ADMINS

NAME = "kulvert-up-admins"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
PATH = f"{BINDINGS}/{NAME}"
LABEL = "app.kubernetes.io/managed-by"
OURS = "kulvert-up"
ROLE = "cluster-admin"
_GROUP = "rbac.authorization.k8s.io"
BY_HAND = f"kubectl delete clusterrolebinding {NAME}"


def manifest() -> Object:
    """The ClusterRoleBinding."""
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": NAME, "labels": {LABEL: OURS}},
        "roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"apiGroup": _GROUP, "kind": "Group", "name": ADMINS}],
    }


class Api(Protocol):
    """What is needed of `ApiClient`."""

    async def send(self, method: str, path: str, body: Object | None = None) -> Reply:
        """One request. :raises Failed: there was no answer."""


class Binding:
    """An async context manager: the binding is there inside it, and gone after it. `adopted`: it was there already."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._uid = ""
        self.adopted = False

    async def __aenter__(self) -> Self:
        made = await self._api.send("POST", BINDINGS, manifest())
        if made.status == 409:
            made = await self._adopt()
        if made.status not in (200, 201):
            raise _refused(made)
        self._uid = str(_metadata(made.body).get("uid", ""))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """By its uid: one that was made anew meanwhile is somebody else's."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": self._uid}}
        try:
            gone = await self._api.send("DELETE", PATH, body)
        except Failed as failed:
            raise Failed(f"the ClusterRoleBinding {NAME} is still there ({failed}): {BY_HAND}") from failed
        if gone.status not in (200, 202, 404, 409):
            raise Failed(f"the ClusterRoleBinding {NAME} is still there ({gone.message}): {BY_HAND}")

    async def _adopt(self) -> Reply:
        found = await self._api.send("GET", PATH)
        if found.status == 200 and not _is_ours(found.body):
            raise Failed(f"the cluster has a ClusterRoleBinding {NAME} that is not ours: rename or remove it")
        self.adopted = True
        return found


def _is_ours(found: Object) -> bool:
    labels = _metadata(found).get("labels") or {}
    wanted = manifest()
    same = all(found.get(key) == wanted[key] for key in ("roleRef", "subjects"))
    return labels.get(LABEL) == OURS and same


def _metadata(found: Object) -> dict[str, Any]:
    return found.get("metadata") or {}


def _refused(reply: Reply) -> Failed:
    if reply.status == 401:
        return Failed("the cluster does not accept the kubeconfig's credential: renew it, and try again")
    if reply.status == 403:
        return Failed(f"the kubeconfig must be a cluster administrator's, for `up` to bind {ADMINS}: {reply.message}")
    return Failed(f"the cluster refused the ClusterRoleBinding {NAME}: {reply.message}")
