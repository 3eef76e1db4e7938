"""Recordings of terminal sessions: which there are to be, and a tap for each of them.

Where a rule requires a recording, a session that cannot be recorded does not begin: answered 503, with nothing sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from auth.yamlnodes import YamlError
from gateway.failures import Refused
from gateway.recording.asciicast import Asciicast
from gateway.recording.file import RecordingFile, private_directory
from gateway.recording.policy import Recording, RecordingPolicy, Session, load_recording_policy
from gateway.recording.settings import RecordingSettings
from gateway.recording.tap import RecordingTap
from gateway.status import GATEWAY, Failure
from tunnel.requestinfo import RequestInfo

if TYPE_CHECKING:
    from gateway.passage import Passage

_log = logging.getLogger(__name__)
_RECORDED: Final = frozenset({"exec", "attach"})
_HARMLESS: Final = frozenset({"portforward", "ephemeralcontainers"})
"""No session of its own: a tunnel for bytes, and a change of an object, to which one attaches afterwards."""
_APPLICATIONS: Final = frozenset({"pods", "services"})
"""Behind whose proxy an application speaks; a node's is the kubelet, which runs commands."""
_MAX_TITLE: Final = 512
UNRECORDABLE: Final = Failure(
    503, "ServiceUnavailable", GATEWAY,
    "Kulvert's gateway must record this session, and cannot: {}; tell its operators",
)  # fmt: skip


class Recordings:
    """What the pipeline asks about each request that is `interactive`. `clock` is monotonic, `wall` epoch time.

    :raises YamlError: the policy cannot be used. :raises OSError: there can be no private directory.
    """

    def __init__(
        self, settings: RecordingSettings, state: Path, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._directory = settings.directory or state / "recordings"
        self._clock = clock
        self._wall = wall
        self._policy = self._load()
        self.active = self.begun = self.failed = 0

    def reload(self) -> None:
        """For SIGHUP: reads the policy anew. One that cannot be used changes nothing."""
        try:
            self._policy = self._load()
        except (YamlError, OSError) as error:
            _log.error("the recording policy in force is older than its file", extra={"error": str(error)})

    def prepare(self, passage: Passage) -> None:
        """Puts a tap on a passage where a rule wants one. To be called when its block is made and not sent yet.

        :raises Refused: it must be recorded, and cannot be.
        """
        info, identity, upgrade = passage.info, passage.identity, passage.head.upgrade
        if info is None or identity is None or not info.interactive:
            return
        session = _session(info, _query(passage), upgrade is not None)
        if session is None:
            return
        recording = self._policy.decide(identity, passage.cluster, info, session)
        if recording is Recording.NONE:
            return
        if session is not Session.OTHER and upgrade is not None:
            self._tap(passage, upgrade, required=recording is Recording.REQUIRED)
        elif recording is Recording.REQUIRED:
            raise Refused(UNRECORDABLE, "there is no recording of this kind of session: use kubectl exec or attach")

    # --- gateway.recording.tap.Tally

    def began(self) -> None:
        """A recording runs."""
        self.active += 1
        self.begun += 1

    def ended(self, *, failed: bool) -> None:
        """A recording has ended; failed: before its session."""
        self.active -= 1
        self.failed += failed

    def _tap(self, passage: Passage, upgrade: bytes, *, required: bool) -> None:
        name = f"{passage.audit_id}.cast"
        try:
            file = RecordingFile(self._directory / name, self._settings.max_bytes)
        except OSError as error:
            self.failed += 1
            _log.error("a session cannot be recorded", extra={"recording": name, "error": error.strerror})
            if required:
                raise Refused(UNRECORDABLE, f"its file cannot be opened ({error.strerror})") from None
            return
        cast = Asciicast(self._wall(), _title(passage), " ".join(_values(_query(passage), b"command")))
        passage.tap = RecordingTap(
            file, cast, name, upgrade, self._clock, self, required=required, typed=self._settings.input
        )
        if passage.block is not None:  # compressed messages could not be read
            block = passage.block
            block.headers = [pair for pair in block.headers if pair[0] != b"sec-websocket-extensions"]

    def _load(self) -> RecordingPolicy:
        path = self._settings.policy_file
        policy = load_recording_policy(path) if path is not None else RecordingPolicy(())
        if policy.rules:
            private_directory(self._directory)
        return policy


class RecordingCollector(Collector):
    """Recordings in the metrics."""

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        told = self._recordings
        yield GaugeMetricFamily("kulvert_recordings_active", "Sessions that are being recorded.", told.active)
        yield CounterMetricFamily("kulvert_recordings", "Recordings that were begun.", told.begun)
        yield CounterMetricFamily("kulvert_recordings_failed", "Recordings that failed, or ended early.", told.failed)


def _session(info: RequestInfo, query: bytes, upgrade: bool) -> Session | None:
    """What kind of session begins here, or None. Of a node's proxy, plain reading (metrics, logs) is none."""
    if info.subresource in _RECORDED:
        if not upgrade:
            return None  # the API server will ask for one
        told = (value.lower() for value in _values(query, b"tty"))
        return Session.TERMINAL if any(value not in ("0", "false") for value in told) else Session.COMMAND
    if info.subresource in _HARMLESS or (info.subresource == "proxy" and info.resource in _APPLICATIONS):
        return None
    return Session.OTHER if upgrade or info.verb not in ("get", "list") else None


def _query(passage: Passage) -> bytes:
    return passage.route.target.partition(b"?")[2] if passage.route is not None else b""


def _values(query: bytes, name: bytes) -> list[str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    return [value.decode("utf-8", "backslashreplace") for key, value in pairs if key == name]


def _title(passage: Passage) -> str:
    info, identity = passage.info, passage.identity
    assert info is not None
    assert identity is not None
    where = "/".join(part for part in (passage.cluster, info.namespace, info.resource, info.name) if part)
    return f"{info.subresource} {where} by {identity.user}"[:_MAX_TITLE]
