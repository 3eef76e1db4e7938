"""What of the server's file the replicas share, and by which rules rows of two replicas become one.

Rows that belong together make one document, which is one Secret of the hub: all of a cluster, a join token with the
keys that used it. Who writes a document has seen all of it, because the hub refuses a write over an unseen one. So a
certificate that is renewed while another replica revokes it does not slip through, and a token's last use is had once;
and 10,000 clusters are some 10,000 Secrets, not 50,000. What two replicas wrote to different rows of a document is
merged (`gateway.mirror.merge`).

Not shared: `cluster_key_history` and `grant_change` (a history for people who look into the file; the audit log has
the changes of all), and `store_version`, which tells of this file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

Row: TypeAlias = Mapping[str, Any]
Key: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = Mapping[str, Mapping[Key, Row]]
"""Of one document: by table and primary key."""
Resolver: TypeAlias = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows whose `group` columns are equal are in one document. `by_row`: a row that two replicas have changed is taken
    whole from the hub, else column by column; `resolve` says of a column what becomes of two values.
    """

    name: str
    store: str
    group: tuple[str, ...]
    by_row: bool = False
    resolve: Mapping[str, Resolver] = field(default_factory=dict)
    counter: str = ""
    """Another table, whose AUTOINCREMENT numbers the rows' column `version`: it never gives one that is taken."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of document. The first table has one row in each, which the others belong to, if `parent`; where its
    column `incarnation` differs, the same name is another thing's.
    """

    name: str
    tables: tuple[Table, ...]
    parent: bool = True
    incarnation: str = ""
    whole: bool = False
    """Two changes are never merged: the hub's counts, and the other is to be tried again."""
    keeps: bool = False
    """Deleting is tidying up: it never wins over a change, and what may have been deleted is written again."""
    guard: Callable[[Rows], Rows] | None = None
    """What has to be so of a document that was merged."""


def strictest_end(one: float | None, other: float | None) -> float | None:
    """Of two times until which something holds, None being for ever."""
    return None if one is None or other is None else max(one, other)


def earliest(one: float | None, other: float | None) -> float | None:
    """Of two times at which something happened, None being never."""
    known = [time for time in (one, other) if time is not None]
    return min(known) if known else None


def revoked_lines(rows: Rows) -> Rows:
    """What was renewed from a revoked certificate is revoked: `AgentCertificates.revoke` saw only those it knew."""
    found = rows.get("agent_certificate", {})
    begun: dict[str, tuple[float, float]] = {}
    for row in found.values():
        if row["revoked"] is not None:
            line, seen = row["root"] or row["serial"], (row["issued"], row["revoked"])
            begun[line] = min(begun.get(line, seen), seen)
    changed = {
        key: {**row, "revoked": begun[line][1]}
        for key, row in found.items()
        if row["revoked"] is None
        and (line := row["root"] or row["serial"]) in begun
        and row["issued"] >= begun[line][0]
    }
    return {**rows, "agent_certificate": {**found, **changed}} if changed else rows


_CLUSTER: Final = Kind(
    "cluster",
    (
        Table("cluster", "clusters", ("name",)),
        Table("cluster_mark", "clusters", ("cluster",)),
        Table("cluster_condition", "clusters", ("cluster",), by_row=True),
        Table("agent_certificate", "agent-certificates", ("cluster",), resolve={"revoked": earliest}),
        Table("cluster_key", "cluster keys", ("cluster",), by_row=True),
    ),
    incarnation="created",
    guard=revoked_lines,
)
_JOIN_TOKEN: Final = Kind(
    "join-token",
    (Table("join_token", "join-tokens", ("id",)), Table("join_token_key", "join-tokens", ("token",))),
    incarnation="created",
    whole=True,
)
_ENROLMENT: Final = Kind(
    "enrolment",
    (Table("enrolment", "enrolments", ("cluster", "cluster_id", "fingerprint"), resolve={"last": max}),),
    incarnation="first",
)
_REMOVAL: Final = Kind(
    "removal", (Table("removal", "removals", ("cluster",), resolve={"force": max}),), incarnation="requested"
)
_GRANT: Final = Kind(
    "grant",
    (Table("stored_grant", "grants", ("name",), by_row=True, counter="grant_change"),),
    incarnation="created",
)
_CREDENTIALS: Final = Kind(
    "credentials", (Table("issued_credential", "credentials", ("user",)),), parent=False, keeps=True
)
_REVOKED: Final = Kind(
    "revoked-credential",
    (Table("revoked_credential", "credentials", ("kind", "value"), resolve={"at": earliest, "until": strictest_end}),),
    keeps=True,
)
_REVOKED_USER: Final = Kind(
    "revoked-user", (Table("revoked_user", "credentials", ("user",), resolve={"before": max}),), keeps=True
)
_SERVICE_ACCOUNT: Final = Kind(
    "service-account",
    (
        Table(
            "managed_service_account", "managed service accounts", ("cluster", "namespace", "name"), by_row=True
        ),
    ),
    incarnation="created",
)  # fmt: skip

KINDS: Final = (
    _CLUSTER,
    _JOIN_TOKEN,
    _ENROLMENT,
    _REMOVAL,
    _GRANT,
    _CREDENTIALS,
    _REVOKED,
    _REVOKED_USER,
    _SERVICE_ACCOUNT,
)
