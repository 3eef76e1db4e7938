"""What `kubectl get` shows for each kind: the server prints the table, the client only lays it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cli.sample.document import Obj, dig, moment

Cell = Callable[[Obj, datetime], Any]
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    cell: Cell
    type: str = "string"
    format: str = ""
    priority: int = 0

    def definition(self) -> Obj:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": "",
            "priority": self.priority,
        }


def age(since: str | None, now: datetime) -> str:
    """A duration as apimachinery's HumanDuration writes it: two units while the larger is small."""
    if not since:
        return "<unknown>"
    seconds = max(0, int((now - moment(since)).total_seconds()))
    for limit, unit, letter, below, small in _UNITS:
        if seconds < limit:
            rest = seconds % unit // below if below else 0
            return f"{seconds // unit}{letter}" + (f"{rest}{small}" if rest else "")
    years, days = divmod(seconds // _DAY, 365)
    return f"{years}y{days}d" if days else f"{years}y"


_UNITS = (
    (2 * _MINUTE, 1, "s", 0, ""),
    (10 * _MINUTE, _MINUTE, "m", 1, "s"),
    (3 * _HOUR, _MINUTE, "m", 0, ""),
    (8 * _HOUR, _HOUR, "h", _MINUTE, "m"),
    (2 * _DAY, _HOUR, "h", 0, ""),
    (8 * _DAY, _DAY, "d", _HOUR, "h"),
    (2 * _YEAR, _DAY, "d", 0, ""),
)


def _at(*path: str) -> Cell:
    return lambda obj, _now: dig(obj, path, "<none>") or "<none>"


def _age(obj: Obj, now: datetime) -> str:
    return age(dig(obj, ("metadata", "creationTimestamp")), now)


def _data(obj: Obj, _now: datetime) -> int:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


def _ready(obj: Obj, _now: datetime) -> str:
    statuses = dig(obj, ("status", "containerStatuses")) or []
    total = len(dig(obj, ("spec", "containers")) or [])
    return f"{sum(bool(s.get('ready')) for s in statuses)}/{total}"


def _ports(obj: Obj, _now: datetime) -> str:
    ports = dig(obj, ("spec", "ports")) or []
    return ",".join(f"{p.get('port')}/{p.get('protocol', 'TCP')}" for p in ports) or "<none>"


def _last_seen(obj: Obj, now: datetime) -> str:
    return age(obj.get("lastTimestamp") or dig(obj, ("metadata", "creationTimestamp")), now)


def _involved(obj: Obj, _now: datetime) -> str:
    involved = obj.get("involvedObject") or {}
    return f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"


def _node_status(obj: Obj, _now: datetime) -> str:
    conditions = dig(obj, ("status", "conditions")) or []
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return "Ready" if ready else "NotReady"


NAME = Column("Name", _at("metadata", "name"), format="name")
AGE = Column("Age", _age)

DEFAULT = (NAME, AGE)
NAMESPACES = (NAME, Column("Status", _at("status", "phase")), AGE)
DATA = (NAME, Column("Data", _data, "integer"), AGE)
SECRETS = (NAME, Column("Type", _at("type")), Column("Data", _data, "integer"), AGE)
PODS = (
    NAME,
    Column("Ready", _ready),
    Column("Status", _at("status", "phase")),
    Column("Restarts", lambda _obj, _now: "0"),
    AGE,
    Column("IP", _at("status", "podIP"), priority=1),
    Column("Node", _at("spec", "nodeName"), priority=1),
)
SERVICES = (
    NAME,
    Column("Type", _at("spec", "type")),
    Column("Cluster-IP", _at("spec", "clusterIP")),
    Column("Port(s)", _ports),
    AGE,
)
EVENTS = (
    Column("Last Seen", _last_seen),
    Column("Type", _at("type")),
    Column("Reason", _at("reason")),
    Column("Object", _involved),
    Column("Message", _at("message")),
)
NODES = (
    NAME,
    Column("Status", _node_status),
    Column("Roles", lambda _obj, _now: "sample"),
    AGE,
    Column("Version", _at("status", "nodeInfo", "kubeletVersion")),
)
LEASES = (NAME, Column("Holder", _at("spec", "holderIdentity")), AGE)
