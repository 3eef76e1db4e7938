"""A record of the audit log as an `audit.k8s.io/v1` Event, level Metadata, in a line of JSON.

Bodies are never recorded. Of the query, only values of parameters that Kubernetes itself defines are kept:
an application behind a proxy subresource takes tokens under any name, so every other value is blanked.
`command` of exec is kept, as kube-apiserver keeps it. Source: k8s.io/apiserver `apis/audit/v1` types.

What Event has no field for stands in its annotations, `kulvert.dev/…`. `gateway.audit.lines` writes the same faster.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from auth.identity import Identity
from tunnel.impersonate import Impersonation
from tunnel.requestinfo import RequestInfo

RESPONSE_STARTED: Final = "ResponseStarted"
RESPONSE_COMPLETE: Final = "ResponseComplete"
STREAMS: Final = frozenset({"exec", "attach", "portforward"})
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


class Client(NamedTuple):
    """Who asked, from where, for which cluster, and what was decided: a client's next request has the same.

    `seen` is whom the cluster saw, where that is not the user as authenticated (by --as or by the grant).
    """

    identity: Identity | None = None
    seen: Impersonation | None = None
    source_ip: str = ""
    user_agent: bytes = b""
    cluster: str = ""
    agent: str = ""
    allowed: bool = False
    rule: str = ""
    passed_through: bool = False
    """The user's own credential went on to the cluster, which saw whom that names."""


class AuditRecord(NamedTuple):
    """What is known of a request when its answer has started or ended.

    Times are epoch seconds, `seconds` is the duration so far; `target` is the raw request target. `reason` is the
    decision's or the failure's, `recording` the file that a terminal is recorded in.
    """

    audit_id: str
    stage: str
    received: float
    at: float
    seconds: float
    info: RequestInfo
    target: bytes
    client: Client
    code: int
    bytes_received: int
    bytes_sent: int
    upgrade: bool = False
    reason: str = ""
    recording: str = ""
    notes: Mapping[str, str] | None = None
    """What the management application says of what it did."""


def event(record: AuditRecord) -> dict[str, object]:
    """The Event of a record."""
    return {
        **_head(record),
        **request_part(record.info, record.target),
        **client_part(record.client),
        **_times(record),
        "annotations": {
            **client_annotations(record.client),
            **stream_annotations(record.info, record.upgrade),
            "kulvert.dev/duration": f"{record.seconds:.6f}",
            "kulvert.dev/bytes-received": str(record.bytes_received),
            "kulvert.dev/bytes-sent": str(record.bytes_sent),
            **_optional({"kulvert.dev/reason": record.reason, "kulvert.dev/recording": record.recording}),
            **note_annotations(record.notes),
        },
    }


def minimal(record: AuditRecord) -> dict[str, object]:
    """Enough of an Event to find the rest by: for a record that cannot be written down."""
    problem = {"kulvert.dev/reason": "the rest of this record could not be written down"}
    unknown = {"requestURI": "", "verb": "", "user": {}}
    return {**_head(record), **unknown, **_times(record), "annotations": problem}


def request_part(info: RequestInfo, target: bytes) -> dict[str, object]:
    """What was asked."""
    if info.is_resource_request:
        return {"requestURI": blanked(target), "verb": info.verb, "objectRef": _object(info)}
    return {"requestURI": blanked(target), "verb": info.verb}


def client_part(client: Client) -> dict[str, object]:
    """Who asked."""
    return {
        "user": _told(client.identity) if client.identity else {},
        **({"impersonatedUser": _told(client.seen)} if client.seen else {}),
        "sourceIPs": (client.source_ip,),
        "userAgent": client.user_agent[:_MAX_AGENT].decode("utf-8", "backslashreplace"),
    }


def client_annotations(client: Client) -> dict[str, str]:
    """What was decided, and by what. Values are text, as the Event type wants them."""
    identity = client.identity
    return {
        "kulvert.dev/cluster": client.cluster,
        "kulvert.dev/decision": "allow" if client.allowed else "forbid",
        **_optional(
            {
                "kulvert.dev/agent": client.agent,
                "kulvert.dev/rule": client.rule,
                "kulvert.dev/authenticator": identity.source if identity else "",
                "kulvert.dev/credential": identity.credential_id if identity else "",
                "kulvert.dev/passed-through": "true" if client.passed_through else "",
            }
        ),
    }


def note_annotations(notes: Mapping[str, str] | None) -> dict[str, str]:
    """Notes, each under a name of ours."""
    return {f"kulvert.dev/{name}": value for name, value in (notes or {}).items()}


def stream_annotations(info: RequestInfo, upgrade: bool) -> dict[str, str]:
    """What kind of stream, by meaning, and whether it gives a hand inside a container or machine."""
    if not (info.is_long_running or info.interactive or upgrade):
        return {}
    stream = _stream(info) or ("upgrade" if upgrade else "")
    return _optional({"kulvert.dev/stream": stream, "kulvert.dev/interactive": "true" if info.interactive else ""})


def dumped(event: object) -> bytes:
    """A line of JSON. Text that JSON cannot hold (lone surrogates) is escaped."""
    try:
        return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return orjson.dumps(_escaped(event), option=orjson.OPT_APPEND_NEWLINE)


def blanked(target: bytes) -> str:
    """A request target, cut to a length, without the values of query parameters that Kubernetes does not define."""
    path, mark, query = target[:_MAX_URI].partition(b"?")
    text = path + mark + _VALUE.sub(_kept, query) if mark else path
    return text.decode("utf-8", "backslashreplace")


def micro_time(moment: float) -> str:
    """RFC 3339 in UTC with microseconds: metav1.MicroTime."""
    whole = int(moment)
    return f"{second(whole)}.{int((moment - whole) * 1_000_000):06d}Z"


@lru_cache(maxsize=16)
def second(whole: int) -> str:
    """A batch shares its seconds; formatting one costs more than all the rest of a line."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def _head(record: AuditRecord) -> dict[str, object]:
    kind = {"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata"}
    return {**kind, "auditID": record.audit_id, "stage": record.stage}


def _times(record: AuditRecord) -> dict[str, object]:
    return {
        "responseStatus": {"metadata": {}, "code": record.code},
        "requestReceivedTimestamp": micro_time(record.received),
        "stageTimestamp": micro_time(record.at),
    }


def _object(info: RequestInfo) -> dict[str, str]:
    """In single steps, because a request waits for it."""
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


def _stream(info: RequestInfo) -> str:
    if info.verb == "watch":
        return "watch"
    if info.subresource in STREAMS:
        return info.subresource
    if info.subresource == "proxy" or info.verb == "proxy":
        return "proxy"
    return "log-follow" if info.subresource == "log" and info.is_long_running else ""


def _optional(values: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _told(user: Identity | Impersonation) -> dict[str, object]:
    told: dict[str, object] = {"username": user.user, "groups": user.groups}
    if user.uid:
        told["uid"] = user.uid
    if user.extra:
        told["extra"] = dict(user.extra)
    return told


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list | tuple) else value


def _kept(match: re.Match[bytes]) -> bytes:
    name, known = match[1], match[1] in _KEPT
    if not known and b"%" in name:
        known = unquote_to_bytes(name) in _KEPT
    return match[0] if known else name + b"=***"
