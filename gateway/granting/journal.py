"""Changes of grants by the command on the server's machine, as audit records: nobody sent a request for them.

Changes over the API are in the records of their requests. What was changed while no server ran is in the store's own
history alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from auth.identity import Identity
from gateway.audit.events import RESPONSE_COMPLETE, AuditRecord, Client
from gateway.audit.lines import Lines
from gateway.granting.store import ON_THE_MACHINE, GrantChange, GrantStore
from gateway.management import API_VERSION
from tunnel.requestinfo import RequestInfo

SOURCE: Final = "kulvert-command"
_CODES: Final = {"create": 201}


class Audit(Protocol):
    """gateway.audit.log.AuditLogs."""

    def record(self, line: bytes) -> None: ...


class GrantJournal:
    """`look` is for the store's subscribers. `new_id` makes audit ids, `wall` tells the time."""

    def __init__(self, store: GrantStore, audit: Audit, new_id: Callable[[], str], wall: Callable[[], float]) -> None:
        self._store = store
        self._audit = audit
        self._new_id = new_id
        self._wall = wall
        self._lines = Lines()
        self._seen = store.latest()

    def look(self) -> None:
        """Records what the command has done since the last look."""
        for version, change in self._store.changes_after(self._seen):
            self._seen = version
            if change.by.endswith(ON_THE_MACHINE):
                self._audit.record(self._lines.line(self._record(change)))

    def _record(self, change: GrantChange) -> AuditRecord:
        group, _, version = API_VERSION.partition("/")
        path = f"/apis/{API_VERSION}/grants/{change.name}"
        info = RequestInfo(change.change, path, True, group, version, "", "grants", "", change.name)
        client = Client(identity=Identity(change.by, (), "", (), SOURCE, "", 0.0), allowed=True)
        notes = {"grant": change.name, "change": change.change, "result": "done"}
        return AuditRecord(
            self._new_id(), RESPONSE_COMPLETE, change.at, self._wall(), 0.0, info, path.encode(), client,
            _CODES.get(change.change, 200), 0, 0, notes=notes,
        )  # fmt: skip
