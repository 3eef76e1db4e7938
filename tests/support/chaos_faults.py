"""What goes wrong, when, and for how long: decided by a seed alone, before anything happens.

Three lanes go side by side, each with one fault after another: processes, the network, the hub and clocks. Each lane
deals all its kinds before one comes again.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.support.chaos_scene import CLUSTERS, REPLICAS, Scene
from tests.support.netns import CUT

PROCESSES = ("kill a replica", "freeze a replica", "kill an agent", "freeze an agent")
NETWORK = (
    "cut from the hub", "deaf to the hub", "cut two replicas", "cut agents", "deaf agents", "lose packets", "delay",
)  # fmt: skip
SURROUNDINGS = ("restart the hub", "clock forward", "clock back")
HOUR = 3600.0
LASTS = (1.5, 3.0, 6.0, 9.0, 20.0)
"""Seconds: less and more than Leases last (4), and than agents bear silence (10)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One that lasts from `at` for `seconds`; `whom` are names of replicas, agents, clusters."""

    at: float
    seconds: float
    kind: str
    whom: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.at:5.1f} s, for {self.seconds:4.1f} s: {self.kind} {' '.join(self.whom)}".rstrip()


def schedule(seed: int, seconds: float, longest: float, agents: Iterable[str], *, plain: bool) -> list[list[Fault]]:
    """Lanes of faults that are all over after so many seconds; none is meant to last longer than `longest`. `plain`:
    there are no namespaces, so nothing happens to the network.
    """
    kinds = (PROCESSES, () if plain else NETWORK, SURROUNDINGS)
    return [
        list(_lane(random.Random(f"{seed} {number}"), deck, seconds, longest, tuple(agents)))
        for number, deck in enumerate(kinds)
        if deck
    ]


def _lane(
    chance: random.Random, kinds: tuple[str, ...], seconds: float, longest: float, agents: tuple[str, ...]
) -> Iterator[Fault]:
    at, deck = chance.uniform(0.5, 2.0), list[str]()
    while True:
        deck = deck or chance.sample(kinds, len(kinds))
        kind, lasts = deck.pop(), chance.choice([one for one in LASTS if one <= longest]) * chance.uniform(0.8, 1.2)
        whom = _whom(chance, kind, agents)
        if at + lasts > seconds:
            return
        yield Fault(round(at, 1), round(lasts, 1), kind, whom)
        at += lasts + chance.uniform(0.5, 2.0)


def _whom(chance: random.Random, kind: str, agents: tuple[str, ...]) -> tuple[str, ...]:
    if kind.endswith("an agent"):
        return (chance.choice(agents),)
    if kind == "cut two replicas":
        return tuple(chance.sample(REPLICAS, 2))
    if kind in ("cut agents", "deaf agents"):
        return (chance.choice(CLUSTERS), chance.choice(REPLICAS))
    if kind in ("lose packets", "delay", "restart the hub"):
        return ()
    return (chance.choice(REPLICAS),)


class Chaos:
    """Makes it happen in a scene."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.log: list[str] = []

    async def run(self, lanes: list[list[Fault]]) -> None:
        """All of it; when it returns, nothing is wrong any more."""
        began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                for lane in lanes:
                    group.create_task(self._lane(lane, began))
        finally:
            self._scene.network.heal()
        await self._scene.network.settled()

    async def _lane(self, lane: list[Fault], began: float) -> None:
        for fault in lane:
            await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
            self.log.append(f"{time.monotonic() - began:5.1f} s: {fault.kind} {' '.join(fault.whom)}")
            await self._one(fault)

    async def _one(self, fault: Fault) -> None:
        if fault.kind.startswith("kill"):
            await self._killed(fault)
        elif fault.kind.startswith("freeze"):
            await self._frozen(fault)
        elif fault.kind.startswith("clock"):
            await self._clock(fault)
        elif fault.kind == "restart the hub":
            await self._hub(fault)
        else:
            await self._network(fault)

    async def _killed(self, fault: Fault) -> None:
        await self._scene.kill(fault.whom[0])
        await asyncio.sleep(fault.seconds)
        await self._scene.restart(fault.whom[0])

    async def _frozen(self, fault: Fault) -> None:
        process = self._scene.process(fault.whom[0])
        process.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            process.send(signal.SIGCONT)

    async def _clock(self, fault: Fault) -> None:
        offset = HOUR if fault.kind == "clock forward" else -HOUR
        self._scene.installation.set_clock(fault.whom[0], offset)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            self._scene.installation.set_clock(fault.whom[0], 0.0)

    async def _hub(self, fault: Fault) -> None:
        await self._scene.hub.stop_apiserver(0.0)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            await self._scene.hub.start_apiserver()

    async def _network(self, fault: Fault) -> None:
        network, everybody = self._scene.network, (*REPLICAS, *CLUSTERS)
        match fault.kind:
            case "cut from the hub":
                network.impair(fault.whom, ("hub",), CUT)
            case "deaf to the hub":
                network.impair(("hub",), fault.whom, CUT, back=False)
            case "cut two replicas":
                network.impair(fault.whom[:1], fault.whom[1:], CUT)
            case "cut agents":
                network.impair(fault.whom[:1], fault.whom[1:], CUT)
            case "deaf agents":
                network.impair(fault.whom[1:], fault.whom[:1], CUT, back=False)
            case "lose packets":
                network.impair((*everybody, "hub"), everybody, (0.05, 0.0, 0.0))
            case "delay":
                network.impair((*everybody, "hub"), everybody, (0.0, 0.05, 0.02))
        await asyncio.sleep(fault.seconds)
        network.heal()
