"""Lines of the audit log, at the cost of one f-string: what returns from request to request is kept as JSON already.

`gateway.audit.events.event` says what a line means; a test holds the two against each other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, TypeAlias

from gateway.audit.events import (
    AuditRecord,
    Client,
    client_annotations,
    client_part,
    dumped,
    event,
    micro_time,
    minimal,
    note_annotations,
    request_part,
    stream_annotations,
)
from tunnel.requestinfo import RequestInfo

_log = logging.getLogger(__name__)
_REMEMBERED: Final = 1024
_MAX_REMEMBERED_BYTES: Final = 512

Parts: TypeAlias = tuple[str, str]
"""Fields of the Event, and members of its annotations, as they stand between braces."""


class Lines:
    """Writes records down. `failed` counts those of which only the id and the times could be written."""

    def __init__(self) -> None:
        self.failed = 0
        self._requests: dict[tuple[str, bytes, bool], Parts] = {}

    def line(self, record: AuditRecord, client: Parts | None = None) -> bytes:
        """One line. Never raises: one record must not take others with it. `client` is `client_parts` of its client."""
        try:
            return self._line(record, client or client_parts(record.client))
        except Exception as error:
            self.failed += 1
            _log.error("a record cannot be written down", extra={"audit_id": record.audit_id}, exc_info=error)
            return dumped(minimal(record))

    def _line(self, record: AuditRecord, client: Parts) -> bytes:
        (
            audit_id, stage, received, at, seconds, info, target, _,
            code, bytes_in, bytes_out, upgrade, reason, recording, notes,
        ) = record  # fmt: skip
        who, decided = client
        # A request's meaning follows from its verb and target.
        asked, stream = self._requests.get((info.verb, target, upgrade)) or self._asked(info, target, upgrade)
        more = _more(reason, recording, notes) if reason or recording or notes else ""
        text = (
            f'{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{audit_id}",'
            f'"stage":"{stage}",{asked},{who},"responseStatus":{{"metadata":{{}},"code":{code}}},'
            f'"requestReceivedTimestamp":"{micro_time(received)}","stageTimestamp":"{micro_time(at)}",'
            f'"annotations":{{{decided}{stream},"kulvert.dev/duration":"{seconds:.6f}",'
            f'"kulvert.dev/bytes-received":"{bytes_in}","kulvert.dev/bytes-sent":"{bytes_out}"{more}}}}}\n'
        )
        return text.encode()

    def _asked(self, info: RequestInfo, target: bytes, upgrade: bool) -> Parts:
        parts = _members(request_part(info, target)), _following(stream_annotations(info, upgrade))
        if len(target) <= _MAX_REMEMBERED_BYTES:
            if len(self._requests) >= _REMEMBERED:
                self._requests.clear()
            self._requests[info.verb, target, upgrade] = parts
        return parts


def client_parts(client: Client) -> Parts:
    """What a client's lines have in common, to be kept with the client."""
    return _members(client_part(client)), _members(client_annotations(client))


def plain_line(record: AuditRecord) -> bytes:
    """The same, from scratch."""
    return dumped(event(record))


def _more(reason: str, recording: str, notes: Mapping[str, str] | None) -> str:
    told = {"kulvert.dev/reason": reason, "kulvert.dev/recording": recording}
    return _following({name: value for name, value in told.items() if value} | note_annotations(notes))


def _members(mapping: object) -> str:
    return dumped(mapping)[1:-2].decode()


def _following(mapping: dict[str, str]) -> str:
    return "," + _members(mapping) if mapping else ""
