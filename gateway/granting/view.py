"""Grants as the management API and the command show them: Kubernetes-like objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from auth.grants.explain import Explanation
from auth.grants.grant import Grant
from auth.grants.object import API_VERSION, KIND
from auth.grants.sources import GrantSources
from auth.grants.spec import grant_fields, moment
from gateway.granting.store import GrantStore, StoredGrant
from tunnel.impersonate import Impersonation

STORE = "store"
"""The name of the store among the sources."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A grant of any source; `stored` where it can be changed here, `problem` where it is not in force."""

    name: str
    source: str
    grant: Grant | None
    problem: str = ""
    stored: StoredGrant | None = None

    @property
    def object(self) -> dict[str, Any]:
        """As JSON."""
        status: dict[str, Any] = {"source": self.source, "inForce": not self.problem}
        if self.problem:
            status["message"] = self.problem
        metadata: dict[str, Any] = {"name": self.name}
        if (row := self.stored) is not None:
            metadata |= {"resourceVersion": str(row.version), "creationTimestamp": moment(int(row.created))}
            metadata |= {"labels": dict(row.labels)} if row.labels else {}
            status |= {"createdBy": row.created_by, "updatedBy": row.updated_by, "updated": moment(int(row.updated))}
            status |= {"delegatedBy": row.maker.user} if row.maker else {}
        spec = grant_fields(self.grant) if self.grant is not None else {}
        return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec, "status": status}


def shown(sources: GrantSources, store: GrantStore) -> list[Shown]:
    """All grants of all sources, those that cannot be read last."""
    rows = {row.name: row for row in store.list()}
    found = []
    for one in sources.listed:
        row = rows.get(one.grant.name) if one.source == STORE else None
        found.append(Shown(one.grant.name, one.source, one.grant, one.problem, row))
    return [*found, *(Shown(row.name, STORE, None, row.problem, row) for row in rows.values() if row.grant is None)]


def explained(explanation: Explanation) -> dict[str, Any]:
    """The status of an AccessReview."""
    decision = explanation.decision
    considered = [{"rule": c.rule, "source": c.source, "verdict": c.verdict} for c in explanation.considered]
    told: dict[str, Any] = {"allowed": decision.allowed, "rule": decision.rule, "reason": decision.reason}
    if explanation.impersonated is not None and decision.allowed:
        told["impersonated"] = _identity(explanation.impersonated)
    if decision.pass_through:
        told["passThrough"] = True
    return told | {"considered": considered, "others": explanation.others}


def _identity(seen: Impersonation) -> dict[str, Any]:
    told: dict[str, Any] = {"user": seen.user, "groups": list(seen.groups)}
    if seen.uid:
        told["uid"] = seen.uid
    if seen.extra:
        told["extra"] = {key: list(values) for key, values in seen.extra}
    return told
