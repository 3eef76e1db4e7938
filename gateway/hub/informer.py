"""One kind of object of the hub, kept in memory: list, then watch from there on, and list again where that ends.

    nothing ──(list)──► known ──(watch: events, bookmarks, an orderly end, a cut, silence)──► known
       ▲                  └──(410, garbage, a difference that a check has found)──► nothing to go on from ──┐
       └───────────────────────────────────────────────────────────────────────────────────────────────────┘

While the hub cannot be reached what is known stays, `problem` says so, and `staleness` says for how long.

A watch from a moment that the hub does not have yet, since its store was set back, is silent for ever: after one that
said nothing, not even by a bookmark, the hub is asked for that moment.

The check asks for the list of the very moment of the last event or bookmark (resourceVersionMatch=Exact), objects'
metadata alone: that must be equal to what is known, whatever changes meanwhile. A list of any newer moment differs in
all that is under way, one of resourceVersion=0 comes in one piece and may be older than what is known.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import aiohttp
from kubernetes_asyncio import client

from gateway.hub.asking import Asking, Gone, Refused
from gateway.hub.consistency import differences
from gateway.hub.listing import Lister
from gateway.hub.memory import Delta, Malformed, Memory, TooMany
from gateway.hub.source import Object, Source
from gateway.hub.subscribers import Subscribers
from gateway.hub.timing import InformerTiming, jitter
from gateway.hub.watching import Cut, event_of, version_of, watch
from tunnel.backoff import BackOff

__all__ = ["Delta", "Informer", "InformerTiming", "Object", "Source", "jitter"]
T = TypeVar("T")
_log = logging.getLogger(__name__)
_ANEW: Final = frozenset({400, 404, 500, 504})
"""Refusals after which a watch may never go on from where it was; 504 says that it was a moment that is yet to come."""
_TOLD: Final = 3


@dataclass(slots=True)
class Counts:
    """Since the beginning. `relists` are lists after the first; `differences` are objects that a check found."""

    relists: int = 0
    differences: int = 0


class Informer(Generic[T]):
    """`items` is what the hub has, by key NAME or NAMESPACE/NAME, live; `run` is its life."""

    def __init__(
        self,
        api: client.ApiClient,
        source: Source,
        view: Callable[[Object], T | None],
        randomness: Callable[[], float],
        timing: InformerTiming | None = None,
        clock: Callable[[], float] = time.monotonic,
        most: int = 100_000,
    ) -> None:
        """`view` makes the value that is kept of an object, of which nothing else is: None leaves it out. What it
        raises skips the object. Values that are equal are the same: no delta tells of such a change.
        """
        self._source = source
        self._timing = timing or InformerTiming()
        self._randomness = randomness
        self._clock = clock
        self._most = most
        asking = Asking(api, source)
        self._asking, self._lister = asking, Lister(asking, self._timing)
        self._memory = Memory(view, most)
        self._subscribers: Subscribers[T] = Subscribers(source.path)
        self._failing = BackOff(randomness, self._timing.least, self._timing.most)
        self._relisting = BackOff(randomness, self._timing.least, self._timing.most)
        self._version = ""
        """Where a watch goes on; empty: nowhere, list."""
        self._trusted = True
        """What has the version that is known is what is known."""
        self._listed = False
        self._confirmed = clock()
        self._check_at = 0.0
        self._trouble: str | None = f"{source.path} of the hub was not read yet"
        self._told = ""
        self.counts = Counts()
        self.items: Mapping[str, T] = self._memory.items
        self.synced = asyncio.Event()
        """Listed once."""

    # --- what others see

    @property
    def problem(self) -> str | None:
        """For people; None where all is well."""
        told = [self._troubled(), self._lacking(), self._unusable()]
        return "; ".join(one for one in told if one) or None

    @property
    def skipped(self) -> int:
        """How often `view` has failed."""
        return self._memory.skipped

    def staleness(self, now: float) -> float:
        """Seconds since the hub confirmed what is known, `now` by the informer's clock: by a list, an event, a bookmark
        or the orderly end of a watch. It stays below the length of a watch while all is well.
        """
        return max(0.0, now - self._confirmed)

    def subscribe(self, hear: Callable[[Sequence[Delta[T]]], None]) -> Callable[[], None]:
        """`hear` gets all that is there, then the changes of one read at a time; the first list is told even if it is
        empty. Returns what ends it.
        """
        end = self._subscribers.add(hear)
        if self._listed:
            self._subscribers.tell_one(hear, [Delta(key, None, value) for key, value in self.items.items()])
        return end

    def _troubled(self) -> str | None:
        if self._trouble is None or not self._listed:
            return self._trouble
        return f"{self._trouble} (confirmed {self.staleness(self._clock()):.0f} s ago)"

    def _lacking(self) -> str:
        if not self._memory.lacks:
            return ""
        return f"{self._source.path} of the hub has more than {self._most} objects: new ones are not known"

    def _unusable(self) -> str:
        bad = self._memory.bad
        if not bad:
            return ""
        names = ", ".join(bad[:_TOLD]) + (" and others" if len(bad) > _TOLD else "")
        return (
            f"{len(bad)} of {self._source.path} of the hub cannot be read, and count as before or not at all: {names}"
        )

    # --- life

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            pause = await self._turn()
            await asyncio.sleep(pause)

    async def _turn(self) -> float:
        """One list, check or watch. Returns the seconds to wait before the next."""
        try:
            return await self._work()
        except Gone as error:
            self._version = ""
            pause = self._relisting.next()
            return pause if self._relisting.failures < _TOLD else max(pause, self._failed(f"{error} again and again"))
        except Refused as error:
            if error.status in _ANEW:
                self._doubt()
            return max(self._failed(str(error)), min(error.pause, self._timing.longest))
        except (Malformed, TooMany) as error:
            self._version = ""
            return max(self._failed(f"it gives {error}"), self._timing.most if isinstance(error, TooMany) else 0.0)
        except Cut as error:
            return self._failed(str(error))
        except TimeoutError:
            return self._failed("it does not answer")
        except (aiohttp.ClientError, OSError) as error:
            return self._failed(type(error).__name__)
        except Exception as error:  # a bug here must not end what serves by what is known
            _log.exception("an informer has failed", extra={"informer": self._source.path})
            self._doubt()
            return self._failed(f"internal error ({type(error).__name__})")

    async def _work(self) -> float:
        if not self._version:
            await self._list()
            return 0.0
        if not await watch(self._asking, self._version, self._timing, self._take):
            await self._lister.probe(self._version)
        self._progress()
        if self._clock() >= self._check_at and not (self._memory.lacks and self._memory.full):
            await self._check()
        return self._timing.least * (0.5 + self._randomness() / 2)  # who ends each at once is not asked in a circle

    def _failed(self, told: str) -> float:
        trouble = f"{self._source.path} of the hub cannot be read, what is known may be old: {told}"
        if self._trouble != trouble:
            _log.warning("%s", trouble)
        self._trouble = trouble
        return self._failing.next()

    def _confirm(self) -> None:
        if self._trouble and self._listed:
            _log.info("%s of the hub is read again", self._source.path)
        self._confirmed, self._trouble = self._clock(), None
        self._failing.reset()

    def _progress(self) -> None:
        self._confirm()
        self._relisting.reset()

    def _doubt(self) -> None:
        """List again, and make all values anew: a hub that was set back gives a version twice."""
        self._version, self._trusted = "", False

    # --- list

    async def _list(self) -> None:
        staging = self._memory.stage(self._trusted)
        version = await self._lister.read(staging.add)
        self.counts.relists += self._listed
        deltas = staging.done()
        self._version, self._trusted = version, True
        self._confirm()
        if not self._listed:
            self._check_later()
        if deltas or not self._listed:
            self._listed = True
            self._subscribers.tell(deltas)
        self._tell_unusable()
        self.synced.set()

    # --- watch

    def _take(self, lines: Sequence[bytes]) -> None:
        """What came before an event that cannot be taken counts."""
        deltas: list[Delta[T]] = []
        skipped = self.skipped
        try:
            for line in lines:
                delta = self._event(*event_of(line))
                if delta is not None:
                    deltas.append(delta)
        finally:
            if deltas:
                self._subscribers.tell(deltas)
            if self.skipped != skipped:
                self._tell_unusable()
        self._progress()

    def _event(self, kind: str, item: Any) -> Delta[T] | None:
        delta = self._memory.change(kind, item) if kind in ("ADDED", "MODIFIED", "DELETED") else None
        self._version = version_of(item)
        return delta

    def _tell_unusable(self) -> None:
        told = self._unusable()
        if told and told != self._told:
            _log.error("%s", told)
        self._told = told

    # --- check

    def _check_later(self) -> None:
        self._check_at = self._clock() + self._timing.check * (0.75 + self._randomness() / 2)

    async def _check(self) -> None:
        """Compares what is known with the hub's own list of that moment. Raises Gone: it is over, list again."""
        self._check_later()
        differing = await differences(self._lister, self._memory.versions, self._version)
        if not differing:
            return
        self.counts.differences += len(differing)
        names = differing[:_TOLD]
        told = {"informer": self._source.path, "objects": len(differing), "first": names}
        _log.error("what is known of the hub's objects differs from what the hub has: it is listed again", extra=told)
        self._doubt()
