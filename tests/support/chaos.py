"""One run of chaos: users at work, faults by a seed, then peace, and what must hold.

- Never two owners that accept for one cluster, no request to a wrong cluster (`chaos_evidence`).
- A write that was answered happened once, and one that was not, once at most.
- Each stream ends clearly or goes on: none is silent for longer than `SILENT` when nothing is wrong any more.
- Everybody is served again within `WELL`, and each cluster's agents are with its one owner (`chaos_health`).
- Nothing is left over, and no log tells of a bug.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.chaos_evidence import Evidence, Seen, bugs
from tests.support.chaos_faults import Chaos, schedule
from tests.support.chaos_health import ROUTES, Health
from tests.support.chaos_scene import CLUSTERS, FAKES, REAL, REPLICAS, Scene
from tests.support.chaos_users import Asking, Running, Told, User, Watching
from tests.support.platform import Usage

WELL = 30.0
SILENT = 45.0
QUIET = 20.0
Say = Callable[[str], None]


@dataclass
class Outcome:
    """Of a run; `problems` are invariants that did not hold."""

    seed: int
    problems: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    """Seconds until all was well again, after each round."""
    holdings: int = 0
    """How often the cluster that changed hands most was held anew, the first time included."""

    def need(self, what: str, found: list[str], most: int = 8) -> None:
        """Nothing must have been found."""
        self.problems += [f"{what}: {one}" for one in found[:most]]
        if len(found) > most:
            self.problems.append(f"{what}: and {len(found) - most} more")


class Run:
    """In a scene where everything is well, or is about to be."""

    def __init__(self, scene: Scene, seed: int, say: Say) -> None:
        self._scene = scene
        self._say = say
        self.told = Told()
        self.outcome = Outcome(seed)
        self._tls = scene.installation.tls()
        self.health = Health(scene, self._tls)
        taps = [scene.directory / "i" / f"{name}.tap" for name in REPLICAS]
        taps += [scene.directory / f"{name}.tap" for name in scene.agents]
        records = {name: Seen(scene.directory / f"{name}.requests") for name in FAKES}
        self.evidence = Evidence(CLUSTERS, [Seen(path) for path in taps], records)
        self._asking = self._make_asking()
        self._streams = self._make_streams()
        self._before: dict[str, Usage] = {}

    def _make_asking(self) -> list[User]:
        made: list[User] = []
        for route in ROUTES:
            urls = {cluster: self._scene.installation.url_of(route, cluster) for cluster in FAKES}
            made += [
                Asking(f"{what}-{route}", urls, self._tls, self.told, write=what == "post") for what in ("get", "post")
            ]
        return made

    def _make_streams(self) -> list[Watching | Running]:
        made: list[Watching | Running] = [
            Watching(f"watch-{route}", cluster, self._scene.installation.url_of(route, cluster), self._tls, self.told)
            for route in ROUTES
            for cluster in FAKES
        ]
        kubeconfig = self._scene.installation.kubeconfig(REAL)
        return [*made, Running("exec", self._scene.real, f"{REAL}-demo", kubeconfig, self.told)]

    async def begin(self) -> None:
        """Wait until all is well, load everything once, and see what a process needs; then users come."""
        took, wrong = await self.health.well(time.monotonic(), 2 * WELL)
        assert not wrong, f"it was never well: {wrong}"
        self._say(f"all is well after {took:.1f} s")
        for user in (*self._asking, *self._streams):
            user.start()
        await asyncio.sleep(2.0)
        self._before = self.health.usage()

    async def round(self, number: int, seconds: float, longest: float) -> None:
        """One round of faults, and the peace after it."""
        scene, seed = self._scene, self.outcome.seed + number
        lanes = schedule(seed, seconds, longest, scene.agents, plain=scene.network.plain)
        for fault in sorted((fault for lane in lanes for fault in lane), key=lambda fault: fault.at):
            self._say(f"seed {seed}: {fault}")
        await Chaos(scene).run(lanes)
        healed = time.monotonic()
        took, wrong = await self.health.well(healed, WELL)
        self.outcome.recoveries.append(took)
        self._say(f"seed {seed}: all is well {took:.1f} s after the last fault{': NOT: ' + wrong if wrong else ''}")
        self.outcome.need("not well again", [wrong] if wrong else [])
        self.outcome.need("silent stream", await self._silent(healed))
        self._look()

    async def _silent(self, healed: float) -> list[str]:
        """Streams that neither said anything nor ended since, once those who may still be waiting are waited for."""
        while time.monotonic() < healed + SILENT:
            if all(stream.ticked > healed + 1.0 for stream in self._streams):
                return []
            await asyncio.sleep(0.2)
        return [stream.name for stream in self._streams if stream.ticked <= healed]

    def _look(self) -> None:
        self.evidence.look(time.monotonic() - 1.0)
        self.outcome.need("owners", self.evidence.problems)
        self.evidence.problems.clear()
        self.outcome.need("wrong answer", self.told.wrong)
        self.told.wrong.clear()

    async def stop(self) -> None:
        """Users go. Safe to repeat."""
        for user in (*self._asking, *self._streams):
            await user.stop()

    async def end(self) -> Outcome:
        """Users go; what is left?"""
        await self.stop()
        self.outcome.need("left over", await self.health.quiet(self._before, QUIET))
        self._look()
        self.evidence.look(time.monotonic())
        self.outcome.need("owners", self.evidence.problems)
        self.outcome.need("writes", self.evidence.writes(self.told.tried, self.told.made))
        self.outcome.need("bug", bugs(self._scene.logs()))
        told, evidence = self.told, self.evidence
        self.outcome.holdings = max((len(found) for found in evidence.holdings.values()), default=0)
        if not (evidence.sent and evidence.taken and told.made and told.successes["event"] and told.successes["exec"]):
            self.outcome.problems.append("nothing was seen: no request, write, watch or exec at all succeeded")
        self._say(self.summary())
        return self.outcome

    def summary(self) -> str:
        """In a few lines."""
        told, evidence = self.told, self.evidence
        holdings = {cluster: len(found) for cluster, found in evidence.holdings.items()}
        late = f"{len(evidence.late)} overtaken in flight"
        if evidence.late:
            late += f" (at most {max(evidence.late):.1f} s)"
        lines = [
            f"seed {self.outcome.seed}: successes {dict(told.successes)}; writes tried {len(told.tried)}, answered"
            f" {len(told.made)}, at the API servers {len(evidence.got)}",
            f"HEADs sent {evidence.sent}, taken {evidence.taken}, {late}; holdings {holdings}",
            f"recoveries {[round(one, 1) for one in self.outcome.recoveries]} s",
            f"failures that users were told: {sum(told.failures.values())}",
        ]
        lines += [f"  {count} × {what}" for what, count in told.failures.most_common(12)]
        return "\n".join(lines)


async def run(scene: Scene, seed: int, rounds: int, seconds: float, longest: float, say: Say) -> Outcome:
    """All of it; `seconds` of faults in each round, none of which lasts longer than `longest`."""
    say(f"chaos: mode {scene.mode}, seed {seed}: repeat with KULVERT_CHAOS_SEED={seed}")
    going = Run(scene, seed, say)
    try:
        await going.begin()
        for number in range(rounds):
            await going.round(number, seconds, longest)
        return await going.end()
    finally:
        await going.stop()
