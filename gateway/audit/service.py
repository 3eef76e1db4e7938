"""The audit as a whole, as its settings have it: where records go, which are made, and how it shows in the metrics."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from auth.yamlnodes import YamlError
from gateway.audit.lines import Lines
from gateway.audit.log import AuditIds, AuditLog, AuditLogs, Queue
from gateway.audit.policy import AuditPolicy, load_policy
from gateway.audit.rotation import Rotation, RotationRules
from gateway.audit.settings import AuditSettings
from gateway.audit.sinks import AuditSink, FileSink, OutputSink
from gateway.audit.trail import AuditTrail
from gateway.audit.webhook import Batching, Webhook
from gateway.audit.webhookconfig import load_target

_log = logging.getLogger(__name__)
_MEGABYTE: Final = 1 << 20


class AuditService:
    """An asynchronous context: inside it `log` takes records, at its end the rest is written, within bounds.

    :raises OSError: a file cannot be opened. :raises YamlError: the policy or the webhook's file cannot be used.
    """

    def __init__(self, settings: AuditSettings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._stack = AsyncExitStack()
        self._lines = Lines()
        self._policy = self._load_policy()
        self._trails: list[AuditTrail] = []
        self.log: AuditLogs

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            loop = asyncio.get_running_loop()
            queues: list[Queue] = [self._open(stack, loop, sink, name) for name, sink in self._sinks()]
            if (config := self._settings.webhook_config_file) is not None:
                queues.append(await stack.enter_async_context(self._webhook(config, loop)))
            self.log = AuditLogs(queues)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def trail(self, clock: Callable[[], float], wall: Callable[[], float] = time.time) -> AuditTrail:
        """What the pipeline is given. `clock` is the pipeline's."""
        log = self.log.queues[0] if len(self.log.queues) == 1 else self.log
        trail = AuditTrail(log, AuditIds(os.urandom), wall, clock=clock, policy=self._policy, lines=self._lines)
        self._trails.append(trail)
        return trail

    def problem(self) -> str | None:
        """Why nothing new comes through, or None: for the health page."""
        return self.log.problem

    def reopen(self) -> None:
        """For SIGHUP: files go on in new ones of the same names, and the policy is read anew. One that cannot be used
        changes nothing.
        """
        self.log.reopen()
        try:
            self._policy = self._load_policy()
        except YamlError as error:
            _log.error("the audit policy in force is older than its file", extra={"error": str(error)})
        for trail in self._trails:
            trail.policy = self._policy

    def collector(self) -> Collector:
        """For the metrics."""
        return AuditCollector(self.log.queues, self._lines)

    def _load_policy(self) -> AuditPolicy | None:
        if self._settings.log_path == ("none",) and self._settings.webhook_config_file is None:
            return AuditPolicy(())  # no record is worth its making
        return load_policy(self._settings.policy_file) if self._settings.policy_file else None

    def _sinks(self) -> Iterator[tuple[str, AuditSink]]:
        paths = self._settings.log_path or (str(self._directory / "audit.log"),)
        for path in paths:
            if path == "-":
                yield "stdout", OutputSink(sys.stdout.fileno())
            elif path != "none":
                yield Path(path).name, self._file(Path(path))

    def _file(self, path: Path) -> FileSink:
        settings = self._settings
        rules = RotationRules(
            settings.log_maxsize * _MEGABYTE, settings.log_maxbackup, settings.log_maxage, settings.log_compress
        )
        return FileSink(path, Rotation(path, rules))

    def _open(self, stack: AsyncExitStack, loop: asyncio.AbstractEventLoop, sink: AuditSink, name: str) -> AuditLog:
        settings = self._settings
        log = AuditLog(
            sink, loop.call_soon, later=loop.call_later, name=name,
            capacity=settings.buffer_size, refuse=settings.log_mode == "block",
        )  # fmt: skip
        stack.callback(log.close)
        return log

    def _webhook(self, config: Path, loop: asyncio.AbstractEventLoop) -> Webhook:
        settings = self._settings
        batching = Batching(
            settings.webhook_batch_max_size, settings.webhook_batch_max_wait, settings.webhook_initial_backoff,
            capacity=settings.buffer_size,
        )  # fmt: skip
        jitter = random.Random().random  # noqa: S311 (spreads retries; nobody gains by guessing it)
        return Webhook(load_target(config), batching, loop.time, jitter, refuse=settings.webhook_mode == "block")


class AuditCollector(Collector):
    """Lines that were lost, lines that wait, and whether each place takes them."""

    def __init__(self, queues: Iterable[Queue], lines: Lines) -> None:
        self._queues = tuple(queues)
        self._lines = lines

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        lost = CounterMetricFamily("kulvert_audit_events_lost", "Audit records that were lost.", labels=["sink"])
        waiting = GaugeMetricFamily("kulvert_audit_events_waiting", "Audit records not written yet.", labels=["sink"])
        up = GaugeMetricFamily("kulvert_audit_sink_up", "Whether audit records can be written.", labels=["sink"])
        for queue in self._queues:
            lost.add_metric([queue.name], queue.lost)
            waiting.add_metric([queue.name], queue.waiting)
            up.add_metric([queue.name], float(queue.problem is None))
        yield from (lost, waiting, up)
        yield CounterMetricFamily(
            "kulvert_audit_events_unreadable", "Records of which only the id could be written.", self._lines.failed
        )
