"""A record of the audit log as an `audit.k8s.io/v1` Event, level Metadata, in a line of JSON.

Bodies are never recorded. Of the query, only values of parameters that Kubernetes itself defines are kept:
an application behind a proxy subresource takes tokens under any name, so every other value is blanked.
`command` of exec is kept, as kube-apiserver keeps it. Source: k8s.io/apiserver `apis/audit/v1` types.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from auth.identity import Identity
from gateway.requestinfo import RequestInfo
from tunnel.impersonate import Impersonation

RESPONSE_STARTED: Final = "ResponseStarted"
RESPONSE_COMPLETE: Final = "ResponseComplete"
_MAX_URI: Final = 8192
_MAX_AGENT: Final = 512
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


def line(record: AuditRecord) -> bytes:
    """The Event of a record, as a line of JSON. Text that JSON cannot hold is escaped."""
    try:
        return _dumped(_event(record, _user))
    except TypeError:  # orjson's, for a lone surrogate
        return _dumped(_escaped(_event(record, _told)))


def minimal(record: AuditRecord) -> bytes:
    """Enough of an Event to find the rest by: for a record that `line` fails on."""
    event = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": record.audit_id,
        "stage": record.stage,
        "requestURI": "",
        "verb": "",
        "user": {},
        "responseStatus": {"metadata": {}, "code": record.code},
        "requestReceivedTimestamp": _micro_time(record.received),
        "stageTimestamp": _micro_time(record.at),
        "annotations": {"kulvert.dev/reason": "the rest of this record could not be written down"},
    }
    return _dumped(event)


def _event(record: AuditRecord, user: Callable[[Identity | Impersonation], object]) -> dict[str, object]:
    info = record.info
    event: dict[str, object] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": record.audit_id,
        "stage": record.stage,
        "requestURI": blanked(record.target),
        "verb": info.verb,
        "user": user(record.identity) if record.identity else {},
        "sourceIPs": (record.source_ip,),
        "userAgent": _text(record.user_agent[:_MAX_AGENT]),
        "responseStatus": {"metadata": {}, "code": record.code},
        "requestReceivedTimestamp": _micro_time(record.received),
        "stageTimestamp": _micro_time(record.at),
        "annotations": _annotations(record),
    }
    if record.impersonated is not None:
        event["impersonatedUser"] = user(record.impersonated)
    if info.is_resource_request:
        event["objectRef"] = _object(info)
    return event


def _dumped(event: object) -> bytes:
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list | tuple) else value


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
    return orjson.Fragment(orjson.dumps(_told(user)))


def _told(user: Identity | Impersonation) -> dict[str, object]:
    told: dict[str, object] = {"username": user.user, "groups": user.groups}
    if user.uid:
        told["uid"] = user.uid
    if user.extra:
        told["extra"] = dict(user.extra)
    return told


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
