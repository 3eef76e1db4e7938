"""What stubs sent, what agents took and what API servers got, in order of true time, and what of it must not be.

All processes are on one machine and share its steady clock.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IN_FLIGHT = 12.0
"""Seconds for which a HEAD that its holder sent in time may be under way (what agents call silence, 10, and a little):
TCP keeps trying, and an agent whose stub was silent for longer takes nothing from it any more.
"""
_BUGS = re.compile(r"Traceback \(most recent|internal error|never retrieved|never awaited|unhandled", re.IGNORECASE)


@dataclass
class Seen:
    """What one file had so far; lines that are not whole yet stay for the next time."""

    path: Path
    offset: int = 0

    def more(self) -> Iterator[list[Any]]:
        """What has come since."""
        if not self.path.exists():
            return
        data = self.path.read_bytes()[self.offset :]
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines():
            yield json.loads(line)


@dataclass
class Evidence:
    """`taps` are those of replicas and agents, `records` those of API servers by their names."""

    clusters: tuple[str, ...]
    taps: list[Seen]
    records: dict[str, Seen]
    sent: int = 0
    taken: int = 0
    late: list[float] = field(default_factory=list)
    """Seconds between the sending and the taking of HEADs that were overtaken by another holder's."""
    problems: list[str] = field(default_factory=list)
    got: Counter[str] = field(default_factory=Counter)
    """How often each write came to an API server."""
    holdings: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    """By cluster and epoch, the replica that sent in it."""

    def __post_init__(self) -> None:
        self._cluster = re.compile("|".join(map(re.escape, self.clusters)))
        self._key = re.compile(f"(?:{self._cluster.pattern})-[a-z0-9-]+")
        self._highest: dict[str, dict[str, tuple[int, str]]] = {"sent": {}, "taken": {}}
        self._sending: dict[tuple[str, int], float] = {}
        self._waiting: list[list[Any]] = []

    def look(self, until: float) -> None:
        """Take in what has come since the last time, and was before a moment: what others did then is known, too."""
        events = self._waiting + [event for tap in self.taps for event in tap.more()]
        events.sort(key=lambda event: float(event[0]))
        self._waiting = [event for event in events if event[0] >= until]
        for time, what, name, epoch, target in events[: len(events) - len(self._waiting)]:
            found = self._cluster.search(target)
            if found is None:
                continue
            if what == "sent":
                self._was_sent(time, name, epoch, target, found[0])
            else:
                self._was_taken(time, name, epoch, target, found[0])
        for cluster, record in self.records.items():
            for _time, method, target in record.more():
                self._came(cluster, method, target)

    def _was_sent(self, time: float, name: str, epoch: int, target: str, cluster: str) -> None:
        self.sent += 1
        self._sending[target, epoch] = time
        owner = self.holdings[cluster].setdefault(epoch, name)
        if owner != name:
            self.problems.append(f"{name} and {owner} both sent to {cluster} with epoch {epoch}")
        highest, other = self._highest["sent"].get(cluster, (0, ""))
        if epoch < highest:
            self.problems.append(
                f"two owners of {cluster}: {name} sent {target} with epoch {epoch} after {other} had with {highest}"
            )
        else:
            self._highest["sent"][cluster] = (epoch, name)

    def _was_taken(self, time: float, name: str, epoch: int, target: str, cluster: str) -> None:
        self.taken += 1
        if not name.startswith(cluster):
            self.problems.append(f"a request for {cluster} was taken by {name}: {target}")
        highest, other = self._highest["taken"].get(cluster, (0, ""))
        if epoch >= highest:
            self._highest["taken"][cluster] = (epoch, name)
            return
        if other == name:
            self.problems.append(f"{name} took {target} with epoch {epoch} after one with {highest}")
        sent = self._sending.get((target, epoch))
        if sent is None or time - sent > IN_FLIGHT:
            self.problems.append(
                f"{name} took {target} with epoch {epoch} after {other} had taken one with {highest}; sent at {sent},"
                f" taken at {time}"
            )
        else:
            self.late.append(time - sent)

    def _came(self, cluster: str, method: str, target: str) -> None:
        found = self._cluster.search(target)
        if found is None or found[0] != cluster:
            self.problems.append(f"the API server of {cluster} got {method} {target}")
        elif method == "POST" and (key := self._key.search(target.partition("fieldManager=")[2])):
            self.got[key[0]] += 1

    def writes(self, tried: set[str], made: set[str]) -> list[str]:
        """What became of writes, against what their users were told."""
        problems = [f"{key} was written {count} times" for key, count in self.got.items() if count > 1]
        problems += [f"{key} was answered, and never came to the API server" for key in made if not self.got[key]]
        problems += [f"{key} came, and nobody had sent it" for key in self.got if key not in tried]
        return problems


def bugs(logs: Iterable[Path]) -> list[str]:
    """Lines of logs that say of a bug."""
    lines = ((path, line) for path in logs for line in path.read_text(errors="replace").splitlines())
    return [f"{path.parent.name}/{path.name}: {line[:2000]}" for path, line in lines if _BUGS.search(line)]
