"""Replicas with random writes, outages, lost answers and crashes: afterwards all have the same, and nothing that was
confirmed is lost, and nothing that was removed or revoked comes back.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.database import RegistryError
from gateway.membership.agentcertificates import IssuedCertificate
from gateway.membership.cluster import Cluster, Mark
from gateway.membership.registry import Change
from gateway.mirror.document import read, rows_of
from gateway.mirror.errors import MirrorConflict, MirrorUnavailable
from gateway.mirror.file import MirrorFile
from gateway.mirror.kinds import KINDS
from gateway.mirror.losses import Since
from tests.gateway.mirror.memoryhub import MemoryHub, MemoryInformer, MemoryRecords, Troubles
from tests.gateway.mirror.replica import Replica
from tests.gateway.mirror.virtualtime import run

NAMES = ("alpha", "beta")
REPLICAS = ("a", "b", "c")


@dataclass
class Facts:
    """What `settled` has confirmed, and what was ever wished. A cluster is known by its time of creation."""

    added: set[float] = field(default_factory=set)
    removing: set[float] = field(default_factory=set)
    removed: set[float] = field(default_factory=set)
    issued: dict[str, float] = field(default_factory=dict)
    """Confirmed certificates, with their cluster's incarnation."""
    revoking: set[str] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)
    blocked: set[str] = field(default_factory=set)
    """Users whose credentials were taken back, confirmed."""
    confirmed: int = 0


class World:
    def __init__(self, directory: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.hub = MemoryHub()
        self.troubles = {name: Troubles(slow=0.05, rng=self.rng) for name in REPLICAS}
        self.replicas = {name: self._replica(name, directory) for name in REPLICAS}
        self.up: set[str] = set()
        self.facts = Facts()
        self.time = 1000.0
        self.waiting: list[asyncio.Task[None]] = []
        self.back: list[tuple[str, str]] = []
        """Clusters that were gone from a running replica's memory, and came again, if for a moment."""

    def _replica(self, name: str, directory: Path) -> Replica:
        troubles = self.troubles[name]
        records = MemoryRecords(self.hub, troubles)
        return Replica(name, directory, records, lambda: MemoryInformer(self.hub, troubles))

    async def start(self, name: str) -> None:
        replica, gone = self.replicas[name], set[float]()
        await replica.start()
        self.up.add(name)

        def changed(change: Change, cluster: Cluster) -> None:
            if change is Change.REMOVED:
                gone.add(cluster.created)
            elif change is Change.ADDED and cluster.created in gone:
                self.back.append((name, cluster.name))

        replica.stores.registry.subscribe(changed)

    async def step(self, what: str, name: str, cluster: str) -> None:
        replica, troubles = self.replicas[name], self.troubles[name]
        self.time += 1
        if what == "wait":
            await asyncio.sleep(self.rng.random() * 2)
        elif what == "outage":
            troubles.down = True
        elif what == "flaky":
            troubles.lost_answer = troubles.lost_question = 0.3
        elif what == "mended":
            troubles.down, troubles.lost_answer, troubles.lost_question = False, 0.0, 0.0
        elif what == "start":
            if name not in self.up:
                await self.start(name)
        elif name not in self.up:
            return
        elif what in ("crash", "lose"):
            self.up.discard(name)
            await replica.crash(lost=what == "lose")
        else:
            self._write(what, replica, cluster)

    def _write(self, what: str, replica: Replica, name: str) -> None:
        """By a server that is in step with the hub: others do not serve."""
        if not replica.mirror.synced.is_set():
            return
        since = replica.mirror.now(replica.stores.registry.database)
        try:
            done = getattr(self, f"_{what}")(replica, name)
        except RegistryError:
            return
        if done is not None:
            self.waiting.append(asyncio.get_running_loop().create_task(self._confirm(replica, since, done)))

    async def _confirm(self, replica: Replica, since: Since, done: Callable[[], None]) -> None:
        mirror = replica.mirror
        try:
            await mirror.settled(3.0, since)
        except MirrorUnavailable:
            return
        self.facts.confirmed += 1
        done()

    # --- what people and agents do

    def _add(self, replica: Replica, name: str) -> Callable[[], None]:
        made = self.time
        replica.stores.registry.add(Cluster(name, "u", made, (("by", replica.name),)))
        return lambda: self.facts.added.add(made)

    def _remove(self, replica: Replica, name: str) -> Callable[[], None] | None:
        if (cluster := replica.stores.registry.get(name)) is None:
            return None
        self.facts.removing.add(cluster.created)
        replica.stores.forget(name)
        return lambda: self.facts.removed.add(cluster.created)

    def _mark(self, replica: Replica, name: str) -> Callable[[], None]:
        replica.stores.registry.mark(name, Mark.FINALIZER, f"at-{self.time}")
        return lambda: None

    def _unmark(self, replica: Replica, name: str) -> Callable[[], None] | None:
        cluster = replica.stores.registry.get(name)
        for value in cluster.finalizers if cluster is not None else ():
            replica.stores.registry.unmark(name, Mark.FINALIZER, value)
        return None

    def _issue(self, replica: Replica, name: str) -> Callable[[], None] | None:
        if (cluster := replica.stores.registry.get(name)) is None:
            return None
        counting = [one for one in replica.stores.certificates.of(name) if one.revoked is None]
        root = self.rng.choice(counting).line if counting and self.rng.random() < 0.5 else ""
        serial = f"{int(self.time)}"
        made = IssuedCertificate(serial, name, "u", replica.name, f"k{serial}", self.time, 1e6, None, root)
        replica.stores.certificates.add(made, self.time)

        def confirmed() -> None:
            self.facts.issued[serial] = cluster.created

        return confirmed

    def _revoke(self, replica: Replica, name: str) -> Callable[[], None] | None:
        there = replica.stores.certificates.of(name)
        if not there:
            return None
        serial = self.rng.choice(there).serial
        before = {one.serial for one in there if one.revoked is None}
        replica.stores.certificates.revoke(serial, self.time)
        self.facts.revoking |= before
        gone = {one.serial for one in replica.stores.certificates.of(name) if one.revoked is not None} & before
        return lambda: self.facts.revoked.update(gone)

    def _block(self, replica: Replica, name: str) -> Callable[[], None]:
        replica.credentials.revoke_user(name, self.time)
        return lambda: self.facts.blocked.add(name)

    # --- the end

    async def quiet(self) -> None:
        for name, troubles in self.troubles.items():
            troubles.down, troubles.lost_answer, troubles.lost_question = False, 0.0, 0.0
            if name not in self.up:
                await self.start(name)
        await asyncio.gather(*self.waiting)
        for replica in self.replicas.values():
            await replica.mirror.synced.wait()
        for _ in range(3):  # what one gives up, or guards, the others hear of
            for replica in self.replicas.values():
                await self._settled(replica)
            for replica in self.replicas.values():
                await replica.mirror.caught_up(60)
        await asyncio.sleep(10)  # until what was put off has been looked at

    async def _settled(self, replica: Replica) -> None:
        while True:
            try:
                return await replica.mirror.settled(60)
            except MirrorConflict:
                continue

    def check(self) -> None:
        facts, rows = self.facts, self.replicas["a"].rows()
        assert not self.back
        for replica in self.replicas.values():
            assert replica.failed is None
            assert replica.rows() == rows
            assert replica.mirror.problem is None
            self._check_memory(replica)
        self._check_hub(self.replicas["a"])
        there = {cluster[2] for cluster in rows["cluster"]}
        assert facts.added - facts.removing <= there, "a confirmed cluster is lost"
        assert not facts.removed & there, "a removed cluster is back"
        certificates = {row[0]: row for row in rows["agent_certificate"]}
        for serial, cluster in facts.issued.items():
            if cluster in there and serial not in facts.revoking:
                assert serial in certificates, "a confirmed certificate is lost"
        for serial in facts.revoked & certificates.keys():
            assert certificates[serial][7] is not None, "a revoked certificate counts again"
        self._check_lines(certificates)
        assert facts.blocked <= {row[0] for row in rows["revoked_user"]}, "a user is let in again"

    def _check_lines(self, certificates: dict[str, tuple[object, ...]]) -> None:
        """Whatever was renewed from a revoked one is revoked."""
        for row in certificates.values():
            for other in certificates.values():
                same = (row[8] or row[0]) == (other[8] or other[0])
                if same and row[7] is not None and other[5] >= row[5]:  # type: ignore[operator]  # both are times
                    assert other[7] is not None, "what was renewed from a revoked certificate counts"

    def _check_memory(self, replica: Replica) -> None:
        clusters = replica.rows()["cluster"]
        assert {(one.name, one.created) for one in replica.stores.registry.list()} == {(r[0], r[2]) for r in clusters}
        for row in replica.rows()["agent_certificate"]:
            known = replica.stores.certificates.get(row[0])
            assert known is not None
            assert known.revoked == row[7]

    def _check_hub(self, replica: Replica) -> None:
        kinds = {kind.name: kind for kind in KINDS}
        file: MirrorFile = replica.file.file  # type: ignore[attr-defined]  # a DirectFile
        found: dict[str, list[tuple[object, ...]]] = {table.name: [] for kind in KINDS for table in kind.tables}
        for name, record in self.hub.records.items():
            if name != "kulvert-mirror":
                document = read(record.content)
                made = rows_of(document, file.shapes(kinds[document.kind])) or {}
                for table, rows in made.items():
                    found[table] += [tuple(row.values()) for row in rows.values()]
        assert {table: sorted(rows, key=repr) for table, rows in found.items()} == replica.rows()


WHAT = (
    *("add", "add", "remove", "remove", "mark", "unmark", "issue", "issue", "issue", "revoke", "revoke", "block"),
    *("wait", "wait", "wait", "outage", "flaky", "mended", "mended", "crash", "lose", "start", "start", "start"),
)
STEPS = st.lists(st.tuples(st.sampled_from(WHAT), st.sampled_from(REPLICAS), st.sampled_from(NAMES)), max_size=60)


async def history(steps: list[tuple[str, str, str]], seed: int, directory: Path) -> int:
    world = World(directory, seed)
    for name in REPLICAS:
        await world.start(name)
    await asyncio.sleep(3)
    for what, name, cluster in steps:
        await world.step(what, name, cluster)
    await world.quiet()
    world.check()
    for replica in world.replicas.values():
        await replica.crash()
    return world.facts.confirmed


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_replicas_become_alike_and_what_was_confirmed_stays(steps: list[tuple[str, str, str]], seed: int) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        run(history(steps, seed, Path(directory)))
