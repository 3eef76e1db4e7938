"""The cluster's nodes in a few numbers: how many, what they have, and whose machines they are.

Nodes are long (images, managed fields), and there may be thousands of them: they are read page by page, each page is
counted and forgotten, and one that is too long is asked for again in smaller ones.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

import orjson

from agent.pool import UpstreamPool
from agent.quantity import quantity, shown_bytes, shown_count, shown_cpu
from agent.question import TooLong, ask
from tunnel.limits import KIB

NODES: Final = "/api/v1/nodes"
PAGE: Final = 50
MAX_PAGE: Final = 2048 * KIB
MAX_PAGES: Final = 2_000
_SHOWN: Final = {"cpu": shown_cpu, "memory": shown_bytes, "pods": shown_count}
_PROVIDER: Final = re.compile(r"([a-z0-9][a-z0-9.-]{0,31})://")
_LABELS: Final = {
    "eks.amazonaws.com/nodegroup": "aws",
    "cloud.google.com/gke-nodepool": "gce",
    "kubernetes.azure.com/cluster": "azure",
    "minikube.k8s.io/name": "minikube",
    "microk8s.io/cluster": "microk8s",
}
"""Where a node names no provider by its providerID."""


class NoNodes(Exception):
    """They cannot be counted; the text says why."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """All nodes, those that are ready, and sums of what they have; `allocatable` is of those that take new pods."""

    count: int
    ready: int
    provider: str
    capacity: Mapping[str, str]
    allocatable: Mapping[str, str]


class Count:
    """Counts nodes one by one."""

    def __init__(self) -> None:
        self._count = self._ready = 0
        self._providers: Counter[str] = Counter()
        self._capacity: dict[str, Decimal] = dict.fromkeys(_SHOWN, Decimal(0))
        self._allocatable: dict[str, Decimal] = dict.fromkeys(_SHOWN, Decimal(0))

    def add(self, node: Any) -> None:
        """One, of whatever shape: what is not there is not counted."""
        metadata, spec, status = (_part(node, name) for name in ("metadata", "spec", "status"))
        self._count += 1
        self._ready += _is_ready(status)
        self._providers[provider_of(spec, _part(metadata, "labels"))] += 1
        _sum(self._capacity, _part(status, "capacity"))
        if spec.get("unschedulable") is not True:
            _sum(self._allocatable, _part(status, "allocatable"))

    def result(self) -> Nodes:
        """The sums. The provider is that of most nodes that have one."""
        named = [(count, name) for name, count in self._providers.items() if name]
        provider = max(named, key=lambda one: (one[0], one[1]))[1] if named else ""
        return Nodes(self._count, self._ready, provider, _shown(self._capacity), _shown(self._allocatable))


def provider_of(spec: Mapping[str, Any], labels: Mapping[str, Any]) -> str:
    """aws, gce, azure, kind, k3s, …, or an empty text. Source: the scheme of a node's spec.providerID."""
    identifier = spec.get("providerID")
    found = _PROVIDER.match(identifier) if isinstance(identifier, str) else None
    if found is not None:
        return found[1]
    if labels.get("node.kubernetes.io/instance-type") in ("k3s", "rke2"):
        return str(labels["node.kubernetes.io/instance-type"])
    return next((provider for label, provider in _LABELS.items() if label in labels), "")


async def read_nodes(pool: UpstreamPool, timeout: float) -> Nodes | None:
    """Of all pages; None where there is no such list, or not for this agent. Raises NoNodes, or ExchangeReset.

    `timeout` is seconds for each page.
    """
    count, more, size = Count(), "", PAGE
    for _ in range(MAX_PAGES):
        target = f"{NODES}?limit={size}" + (f"&continue={quote(more, safe='')}" if more else "")
        try:
            reply = await ask(pool, target.encode(), timeout, most=MAX_PAGE)
        except TooLong:
            if size == 1:
                raise NoNodes(f"a node of more than {MAX_PAGE} bytes") from None
            size = max(1, size // 4)
            continue
        if reply.status in (401, 403, 404):
            return None
        if reply.status != 200:
            raise NoNodes(f"the API server answers {reply.status} for {NODES}")
        more = _page(reply.body, count)
        if not more:
            return count.result()
    raise NoNodes(f"more than {MAX_PAGES} pages of nodes")


def _page(body: bytes, count: Count) -> str:
    """Counts a page; gives where the next one begins."""
    try:
        page = orjson.loads(body)
        items, more = page["items"], page["metadata"].get("continue", "")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise NoNodes("the API server's list of nodes is no list") from None
    if not isinstance(items, list) or not isinstance(more, str):
        raise NoNodes("the API server's list of nodes is no list")
    for item in items:
        count.add(item)
    return more


def _part(value: Any, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _is_ready(status: Mapping[str, Any]) -> bool:
    conditions = status.get("conditions")
    known = [one for one in conditions if isinstance(one, dict)] if isinstance(conditions, list) else []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in known)


def _sum(into: dict[str, Decimal], resources: Mapping[str, Any]) -> None:
    for name in into:
        into[name] += quantity(resources.get(name)) or 0


def _shown(sums: Mapping[str, Decimal]) -> dict[str, str]:
    return {name: _SHOWN[name](value) for name, value in sums.items() if value}
