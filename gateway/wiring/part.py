"""What a part of the server adds to what the whole looks at, serves and shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client.registry import Collector

from gateway.management import Check
from gateway.watcher import Look


@dataclass(slots=True)
class Part:
    """`looks` and `checks` are by the names that logs and the health page use; looks run in their order."""

    looks: dict[str, Look] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    warnings: dict[str, Check] = field(default_factory=dict)
    """Checks that take no replica out: see `gateway.management`."""
    routes: list[web.RouteDef] = field(default_factory=list)
    collectors: list[Collector] = field(default_factory=list)


def united(parts: Iterable[Part]) -> Part:
    """All of them as one."""
    whole = Part()
    for part in parts:
        whole.looks |= part.looks
        whole.checks |= part.checks
        whole.warnings |= part.warnings
        whole.routes += part.routes
        whole.collectors += part.collectors
    return whole
