"""The audit log: one `audit.k8s.io/v1` Event, level Metadata, in a line of JSON for each request.

A request costs a tuple on a list; lines are made and written in one batch for each turn of the loop. The
queue is bounded, and where the log cannot be written the gateway lets nothing new through (`ready`), since
what nobody recorded nobody can answer for.

Bodies are never recorded. Of the query, only values of parameters that Kubernetes itself defines are kept:
an application behind a proxy subresource takes tokens under any name, so every other value is blanked.
`command` of exec is kept, as kube-apiserver keeps it. Source: k8s.io/apiserver `apis/audit/v1` types.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

import orjson

from auth.identity import Identity
from gateway.requestinfo import RequestInfo
from tunnel.impersonate import Impersonation

RESPONSE_STARTED: Final = "ResponseStarted"
RESPONSE_COMPLETE: Final = "ResponseComplete"
_BATCH: Final = 512
_MAX_URI: Final = 8192
_MAX_AGENT: Final = 512
_RETRY_AFTER: Final = 1.0
_VALUE: Final = re.compile(rb"([^=&?;]*)=([^&;]*)")
_KEPT: Final = frozenset(
    b"""
    allowWatchBookmarks command container continue dryRun fieldManager fieldSelector fieldValidation follow
    force gracePeriodSeconds ignoreStoreReadErrorWithClusterBreakingPotential includeUninitialized
    insecureSkipTLSVerifyBackend labelSelector limit limitBytes orphanDependents ports pretty previous
    propagationPolicy resourceVersion resourceVersionMatch sendInitialEvents sinceSeconds sinceTime stderr
    stdin stdout stream tailLines timeout timeoutSeconds timestamps tty watch
    """.split()
)


class AuditRecord(NamedTuple):
    """What is known of a request when its answer has started or ended. A tuple, because a request waits for
    its making.

    Times are epoch seconds; `target` is the raw request target. `reason` is the decision's or the
    failure's.
    """

    audit_id: str
    stage: str
    received: float
    at: float
    info: RequestInfo
    target: bytes
    identity: Identity | None
    impersonated: Impersonation | None
    source_ip: str
    user_agent: bytes
    code: int
    cluster: str
    agent: str
    bytes_received: int
    bytes_sent: int
    allowed: bool
    rule: str
    reason: str


class AuditSink(Protocol):
    """Where lines go."""

    def write(self, data: bytes) -> int:
        """Takes the first bytes and says how many; `OSError` where none can be taken."""
        ...

    def close(self) -> None:
        """Nothing is written afterwards."""
        ...


class DescriptorSink:
    """Standard output, or whatever else is open already; it stays open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        """See `AuditSink`. A full pipe that does not block takes nothing for now."""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """See `AuditSink`."""


class FileSink(DescriptorSink):
    """A file, appended to, that its owner alone can read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(self._open())

    def reopen(self) -> None:
        """For log rotation: goes on in a new file of the same name."""
        old, self._descriptor = self._descriptor, self._open()
        os.close(old)

    def close(self) -> None:
        """See `AuditSink`."""
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class AuditLog:
    """Collects records and writes them. `sink` None records nothing; `schedule` is a loop's `call_soon`.

    With `refuse` (the default) a failing sink makes the gateway refuse requests; without, records may be
    lost. What is in `lost` was lost: records of requests that were under way when the queue was full.
    """

    def __init__(
        self,
        sink: AuditSink | None,
        schedule: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.monotonic,
        *,
        capacity: int = 10_000,
        refuse: bool = True,
    ) -> None:
        self._sink = sink
        self._schedule = schedule
        self._clock = clock
        self._capacity = capacity
        self._refuse = refuse
        self._queue: list[AuditRecord] = []
        self._unwritten = b""
        self._scheduled = False
        self._retry_at = 0.0
        self.problem: str | None = None
        self.lost = 0

    def record(self, record: AuditRecord) -> None:
        """Takes a record, to be written at the end of this turn. Past twice the capacity it is lost, and counted."""
        if self._sink is None:
            return
        queue = self._queue
        if len(queue) >= 2 * self._capacity:
            self.lost += 1
            return
        queue.append(record)
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self._flush_once)

    def ready(self) -> bool:
        """Whether a new request may come through; where the sink has failed, this is also what tries it again."""
        if self.problem is None and len(self._queue) < self._capacity:
            return True
        if self._clock() >= self._retry_at:
            self.flush()
        return not self._refuse or (self.problem is None and len(self._queue) < self._capacity)

    def flush(self) -> None:
        """Writes what there is, as far as the sink takes it. Never raises: `problem` says what is wrong."""
        if self._sink is None:
            return
        try:
            while self._unwritten or self._queue:
                if not self._unwritten:
                    batch, self._queue = self._queue[:_BATCH], self._queue[_BATCH:]
                    self._unwritten = b"".join([line(record) for record in batch])
                taken = self._sink.write(self._unwritten)
                self._unwritten = self._unwritten[taken:]
                if not taken:
                    return
            self.problem = None
        except OSError as error:
            self.problem = f"the audit log cannot be written: {error.strerror}"
            self._retry_at = self._clock() + _RETRY_AFTER

    def close(self) -> None:
        """Writes the rest and closes the sink."""
        self.flush()
        if self._sink is not None:
            self._sink.close()

    def _flush_once(self) -> None:
        self._scheduled = False
        if self.problem is None or self._clock() >= self._retry_at:
            self.flush()


class AuditIds:
    """Unique ids in the form of a UUID (RFC 9562, version 8): 74 random bits of this process, then a
    counter.

    They name requests and are no secret. Each process makes its own, from its own randomness.
    """

    def __init__(self, randomness: Callable[[int], bytes]) -> None:
        base = randomness(16).hex()
        variant = "89ab"[int(base[15], 16) % 4]
        self._prefix = f"{base[:8]}-{base[8:12]}-8{base[12:15]}-{variant}{base[16:19]}-"
        self._count = int(base[20:], 16)

    def __call__(self) -> str:
        """The next id."""
        self._count = count = (self._count + 1) & 0xFFFFFFFFFFFF
        return f"{self._prefix}{count:012x}"


def line(record: AuditRecord) -> bytes:
    """The Event of a record, as a line of JSON."""
    info = record.info
    event: dict[str, object] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": record.audit_id,
        "stage": record.stage,
        "requestURI": blanked(record.target),
        "verb": info.verb,
        "user": _user(record.identity) if record.identity else {},
        "sourceIPs": (record.source_ip,),
        "userAgent": _text(record.user_agent[:_MAX_AGENT]),
        "responseStatus": {"metadata": {}, "code": record.code},
        "requestReceivedTimestamp": _micro_time(record.received),
        "stageTimestamp": _micro_time(record.at),
        "annotations": _annotations(record),
    }
    if record.impersonated is not None:
        event["impersonatedUser"] = _user(record.impersonated)
    if info.is_resource_request:
        event["objectRef"] = _object(info)
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)


def blanked(target: bytes) -> str:
    """A request target, cut to a length, without the values of query parameters that Kubernetes does not define."""
    path, mark, query = target[:_MAX_URI].partition(b"?")
    return _text(path + mark + _VALUE.sub(_kept, query)) if mark else _text(path)


def _kept(match: re.Match[bytes]) -> bytes:
    name, known = match[1], match[1] in _KEPT
    if not known and b"%" in name:
        known = unquote_to_bytes(name) in _KEPT
    return match[0] if known else name + b"=***"


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


@lru_cache(maxsize=1024)
def _user(user: Identity | Impersonation) -> orjson.Fragment:
    """Users return, so their part of the line is remembered."""
    told: dict[str, object] = {"username": user.user, "groups": user.groups}
    if user.uid:
        told["uid"] = user.uid
    if user.extra:
        told["extra"] = dict(user.extra)
    return orjson.Fragment(orjson.dumps(told))


def _object(info: RequestInfo) -> dict[str, str]:
    told = {"resource": info.resource, "apiVersion": info.api_version}
    if info.namespace:
        told["namespace"] = info.namespace
    if info.name:
        told["name"] = info.name
    if info.api_group:
        told["apiGroup"] = info.api_group
    if info.subresource:
        told["subresource"] = info.subresource
    return told


def _annotations(record: AuditRecord) -> dict[str, str]:
    """Kulvert's part of the story. Values are text, as the Event type wants them."""
    told = {
        "kulvert.dev/cluster": record.cluster,
        "kulvert.dev/bytes-received": str(record.bytes_received),
        "kulvert.dev/bytes-sent": str(record.bytes_sent),
        "kulvert.dev/decision": "allow" if record.allowed else "forbid",
    }
    if record.info.interactive:
        told["kulvert.dev/interactive"] = "true"
    if record.agent:
        told["kulvert.dev/agent"] = record.agent
    if record.rule:
        told["kulvert.dev/rule"] = record.rule
    if record.reason:
        told["kulvert.dev/reason"] = record.reason
    return told


def _micro_time(moment: float) -> str:
    """RFC 3339 in UTC with microseconds: metav1.MicroTime."""
    whole = int(moment)
    return f"{_second(whole)}.{int((moment - whole) * 1_000_000):06d}Z"


@lru_cache(maxsize=16)
def _second(whole: int) -> str:
    """A batch shares its seconds; formatting one costs more than all the rest of a line."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
