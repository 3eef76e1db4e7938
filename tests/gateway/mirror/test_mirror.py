"""Replicas of one installation: what one writes the others have, and the hub's word counts."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.membership.agentcertificates import IssuedCertificate
from gateway.membership.cluster import Cluster, Mark
from gateway.membership.stores import Stores
from gateway.mirror.document import dumped, name_of, read
from gateway.mirror.errors import MirrorConflict, MirrorUnavailable
from gateway.mirror.file import MirrorFile
from gateway.mirror.mirror import Member, Mirror
from gateway.mirror.records import RecordsUnavailable
from gateway.mirror.tables import make_tables, stop_sharing
from tests.gateway.mirror.memoryhub import MemoryHub, MemoryInformer, MemoryRecords, Troubles
from tests.gateway.mirror.replica import DirectFile, Replica
from tests.gateway.mirror.virtualtime import run


class Platform:
    """Replicas and their hub."""

    def __init__(self, directory: Path) -> None:
        self.hub = MemoryHub()
        self.directory = directory
        self.troubles: dict[str, Troubles] = {}
        self.records: dict[str, MemoryRecords] = {}

    def replica(self, name: str) -> Replica:
        troubles = self.troubles.setdefault(name, Troubles())
        self.records[name] = MemoryRecords(self.hub, troubles)
        return Replica(name, self.directory, self.records[name], lambda: MemoryInformer(self.hub, troubles))

    async def pair(self) -> tuple[Replica, Replica]:
        first, second = self.replica("a"), self.replica("b")
        await first.begin()
        await second.begin()
        return first, second


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


async def both(*replicas: Replica) -> None:
    """All that one has the others have, whatever was overruled."""
    for replica in replicas:
        with suppress(MirrorConflict):
            await replica.mirror.settled(60)
        await replica.mirror.settled(60)
    for replica in replicas:
        await replica.mirror.caught_up(60)


def certificate(serial: str, cluster: str, issued: float = 1.0, root: str = "") -> IssuedCertificate:
    return IssuedCertificate(serial, cluster, "u", "agent", f"key-{serial}", issued, 9e9, None, root)


def test_what_one_writes_the_other_has_in_its_memory(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        a.stores.registry.add(Cluster("alpha", None, 5.0, (("env", "prod"),)))
        await both(a, b)
        assert b.stores.registry.get("alpha") == Cluster("alpha", None, 5.0, (("env", "prod"),))
        b.stores.registry.pin("alpha", "uid", 6.0)
        a.stores.certificates.add(certificate("1", "alpha"), 1.0)
        await both(a, b)
        assert a.rows() == b.rows()
        assert a.stores.registry.get("alpha") == Cluster("alpha", "uid", 5.0, (("env", "prod"),), 6.0)
        assert b.stores.certificates.get("1") is not None
        b.stores.forget("alpha")
        await both(a, b)
        assert a.stores.registry.list() == ()
        assert a.stores.certificates.get("1") is None
        assert set(platform.hub.records) == {"kulvert-mirror"}
        assert (a.mirror.problem, b.mirror.problem) == (None, None)
        await a.crash()
        await b.crash()

    run(work())


def names(replica: Replica) -> list[str]:
    return [cluster.name for cluster in replica.stores.registry.list()]


def single_server(path: Path, *clusters: str) -> None:
    stores = Stores.open(path)
    for name in clusters:
        stores.registry.add(Cluster(name, "u", 1.0))
        stores.certificates.add(certificate(f"of-{name}", name), 1.0)
    stores.close()


def cluster_record(name: str = "alpha") -> str:
    return name_of("kulvert", "cluster", (name,))


def change_at_hub(platform: Platform, name: str, change: Callable[[dict[str, object]], object]) -> None:
    """As a replica of another release does."""
    found = read(platform.hub.records[name].content)
    row = dict(found.tables["cluster"][0])
    change(row)
    tables = {**found.tables, "cluster": (row,)}
    platform.hub.put(name, "cluster", dumped(dataclasses.replace(found, tables=tables)))


async def written(platform: Platform, question: Callable[[], bool]) -> None:
    """Returns at the very moment when it is at the hub: its writer has no answer yet."""
    while not question():
        await platform.hub.changed.heard()


# --- settled


def test_settled_says_so_where_the_hub_does_not_have_it(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        platform.troubles["a"].down = True
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        with pytest.raises(MirrorUnavailable, match="cannot be reached"):
            await a.mirror.settled(3)
        assert names(b) == []
        assert "cannot be reached" in (a.mirror.problem or "")
        platform.troubles["a"].down = False
        await a.mirror.settled(30)
        await both(a, b)
        assert names(b) == ["alpha"]
        assert a.mirror.problem is None

    run(work())


def test_settled_waits_for_the_first_of_two_writes_to_the_same(platform: Platform) -> None:
    async def work() -> None:
        a, _b = await platform.pair()
        platform.troubles["a"].slow = 2.0
        for number in range(5):
            a.stores.registry.add(Cluster(f"c{number}", None, 5.0))
            a.stores.registry.mark("c0", Mark.GATE, f"g{number}")
            await a.mirror.settled(30)
            content = platform.hub.records[cluster_record("c0")].content
            assert f'"g{number}"'.encode() in content
            assert cluster_record(f"c{number}") in platform.hub.records

    run(work())


def test_who_was_overruled_is_told_even_if_he_asks_late(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        moments = [one.mirror.now(one.stores.registry.database) for one in (a, b)]
        a.stores.registry.add(Cluster("alpha", "ours", 5.0))
        b.stores.registry.add(Cluster("alpha", "theirs", 6.0))
        await asyncio.sleep(10)
        told = []
        for one, before in zip((a, b), moments, strict=True):
            try:
                await one.mirror.settled(5, before)
            except MirrorConflict:
                told.append(one)
        assert len(told) == 1
        assert a.rows() == b.rows()
        await told[0].mirror.settled(5)

    run(work())


def refuse(platform: Platform, replica: str, *names: str) -> None:
    """A quota, or somebody's webhook: the hub takes these of a replica's documents no more."""
    records = platform.records[replica]
    create = records.create

    async def refusing(name: str, table: str, content: bytes) -> str:
        if name in names:
            raise RecordsUnavailable("POST Secret: the hub answers 403 (Forbidden)")
        return await create(name, table, content)

    records.create = refusing  # type: ignore[method-assign]  # for this test


def test_what_the_hub_refuses_keeps_no_other_change_waiting(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        database = a.stores.registry.database
        a.stores.registry.add(Cluster("alpha", "u", 1.0))
        await a.mirror.settled(20)
        refuse(platform, "a", cluster_record("new"))
        since = a.mirror.now(database)
        a.stores.registry.add(Cluster("new", None, 2.0))
        with pytest.raises(MirrorUnavailable, match="403"):
            await a.mirror.settled(3, since)
        for number in range(3):
            since = a.mirror.now(database)
            a.stores.certificates.add(certificate(f"{number}", "alpha"), 5.0)
            until = a.mirror.now(database)
            a.stores.registry.mark("new", Mark.GATE, f"g{number}")
            await a.mirror.settled(3, since, until)
            assert b.stores.certificates.get(f"{number}") is not None
        assert "403" in (a.mirror.problem or "")
        since = a.mirror.now(database)
        a.stores.registry.mark("new", Mark.GATE, "late")
        with pytest.raises(MirrorUnavailable, match="403"):
            await a.mirror.settled(3, since)
        with pytest.raises(MirrorUnavailable, match="403"):
            await a.mirror.settled(3)

    run(work())


def test_another_changes_conflict_is_told_to_nobody_else(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        platform.troubles["a"].slow = 1.0
        a.stores.registry.add(Cluster("alpha", "ours", 5.0))
        b.stores.registry.add(Cluster("alpha", "theirs", 6.0))
        first = a.mirror.now(a.stores.registry.database)
        a.stores.registry.add(Cluster("beta", None, 5.0))
        losses = a.mirror.counts.conflicts
        await a.mirror.settled(20, first)
        await asyncio.sleep(10)
        assert a.mirror.counts.conflicts > losses, "the other one's has not come yet"
        await a.mirror.settled(20, first)

    run(work())


def test_who_was_overruled_is_told_even_if_the_same_was_changed_once_more(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        a.stores.registry.add(Cluster("first", None, 1.0))
        await both(a, b)
        b.stores.registry.add(Cluster("alpha", "theirs", 6.0))
        database = a.stores.registry.database
        since = a.mirror.now(database)
        a.stores.registry.add(Cluster("alpha", "ours", 5.0))
        until = a.mirror.now(database)
        a.stores.registry.mark("alpha", Mark.GATE, "late")
        await asyncio.sleep(10)
        assert a.mirror.counts.conflicts
        with pytest.raises(MirrorConflict):
            await a.mirror.settled(3, since, until)

    run(work())


def test_a_change_before_which_the_file_could_not_be_read_waits_for_all(platform: Platform) -> None:
    async def work() -> None:
        a, _ = await platform.pair()
        refuse(platform, "a", cluster_record("new"))
        a.stores.registry.add(Cluster("new", None, 2.0))
        with pytest.raises(MirrorUnavailable, match="403"):
            await a.mirror.settled(3, a.mirror.now(None), a.mirror.now(None))

    run(work())


def test_a_waiter_that_is_cancelled_leaves_nothing_behind(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        platform.troubles["a"].slow = 1.0
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        task = asyncio.create_task(a.mirror.settled(30))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not a.mirror._awaited
        await both(a, b)
        assert names(b) == ["alpha"]

    run(work())


def test_what_the_command_wrote_is_brought_to_the_hub_too(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        command = Stores.open(a.path)
        command.registry.add(Cluster("alpha", None, 5.0))
        command.close()
        await asyncio.sleep(5)
        assert names(b) == ["alpha"]

    run(work())


# --- who comes first, and who comes later


def test_a_single_servers_file_becomes_that_of_all(platform: Platform) -> None:
    async def work() -> None:
        single_server(platform.directory / "a.db", "alpha", "beta")
        a, b = platform.replica("a"), platform.replica("b")
        platform.troubles["a"].slow = 20.0
        await a.start()
        await written(platform, lambda: "kulvert-mirror" in platform.hub.records)
        await b.start()
        await asyncio.sleep(1)
        assert not b.mirror.synced.is_set(), "not all of it is there yet"
        await b.mirror.synced.wait()
        assert names(b) == ["alpha", "beta"]
        assert a.rows() == b.rows()
        assert not list(platform.directory.glob("*before-hub*"))

    run(work())


def test_a_first_replica_that_dies_while_it_fills_the_hub_goes_on_later(platform: Platform) -> None:
    async def work() -> None:
        single_server(platform.directory / "a.db", *(f"c{number}" for number in range(40)))
        platform.troubles["a"] = Troubles(slow=0.2, lost_answer=0.3, lost_question=0.3)
        a, b = platform.replica("a"), platform.replica("b")
        for _ in range(4):
            await a.start()
            await asyncio.sleep(1)
            await a.crash()
        await b.start()
        await a.begin(1000)
        await b.mirror.synced.wait()
        platform.troubles["a"].lost_answer = platform.troubles["a"].lost_question = 0.0
        assert len(names(b)) == 40
        assert a.rows() == b.rows()

    run(work())


def test_a_file_of_another_installation_is_kept_aside_and_the_hub_counts(platform: Platform) -> None:
    async def work() -> None:
        a = platform.replica("a")
        await a.begin()
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await a.mirror.settled(5)
        single_server(platform.directory / "b.db", "alpha", "mine")
        b = platform.replica("b")
        await b.begin()
        assert names(b) == ["alpha"]
        assert b.rows() == a.rows()
        (aside,) = platform.directory.glob("b.before-hub.*")
        assert aside.stat().st_mode & 0o777 == 0o600
        kept = Stores.open(aside)
        assert [cluster.name for cluster in kept.registry.list()] == ["alpha", "mine"]
        kept.close()

    run(work())


def test_of_two_single_servers_that_begin_at_once_one_counts(platform: Platform) -> None:
    async def work() -> None:
        for name in ("a", "b"):
            single_server(platform.directory / f"{name}.db", f"of-{name}")
        a, b = platform.replica("a"), platform.replica("b")
        await asyncio.gather(a.begin(), b.begin())
        await both(a, b)
        assert names(a) == names(b)
        assert len(names(a)) == 1
        assert len(list(platform.directory.glob("*.before-hub.*"))) == 1

    run(work())


def test_a_replica_that_was_away_for_long_brings_nothing_back(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        for name in ("kept", "removed", "again"):
            a.stores.registry.add(Cluster(name, "u", 5.0))
            a.stores.certificates.add(certificate(name, name), 1.0)
        await both(a, b)
        platform.troubles["b"].down = True
        await asyncio.sleep(1)
        for name in ("kept", "removed", "again"):
            b.stores.registry.mark(name, Mark.FINALIZER, "late")
        await b.crash()
        a.stores.certificates.revoke("kept", 9.0)
        a.stores.forget("removed")
        a.stores.forget("again")
        a.stores.registry.add(Cluster("again", "other", 8.0))
        await a.mirror.settled(5)
        platform.troubles["b"].down = False
        await b.begin()
        await both(a, b)
        assert names(a) == names(b) == ["again", "kept"]
        assert a.rows() == b.rows()
        again, kept, revoked = (b.stores.registry.get("again"), b.stores.registry.get("kept"), b.stores.certificates)
        assert (again is not None and again.uid, again is not None and again.finalizers) == ("other", ())
        assert kept is not None
        assert kept.finalizers == ("late",)
        assert (one := revoked.get("kept")) is not None
        assert one.revoked == 9.0

    run(work())


def test_a_removal_that_a_replica_made_before_it_was_away_counts_when_it_is_back(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        a.stores.registry.add(Cluster("alpha", "u", 5.0))
        await both(a, b)
        platform.troubles["b"].down = True
        b.stores.forget("alpha")
        await b.crash()
        a.stores.registry.mark("alpha", Mark.FINALIZER, "later")
        await a.mirror.settled(5)
        platform.troubles["b"].down = False
        await b.begin()
        await both(a, b)
        assert names(a) == names(b) == []

    run(work())


def test_what_may_have_been_made_and_removed_is_not_made_again(platform: Platform) -> None:
    """The answer was lost; another replica saw the cluster, and removed it."""

    async def work() -> None:
        a, b = await platform.pair()
        platform.troubles["a"].slow = 1.0
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await written(platform, lambda: cluster_record() in platform.hub.records)
        await a.crash()
        await b.mirror.caught_up(5)
        b.stores.forget("alpha")
        await b.mirror.settled(5)
        await a.begin()
        await both(a, b)
        assert names(a) == names(b) == []

    run(work())


def test_a_row_that_may_have_been_written_and_removed_is_not_written_again(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await both(a, b)
        platform.troubles["a"].slow = 1.0
        a.stores.certificates.add(certificate("1", "alpha"), 1.0)
        await written(platform, lambda: b"key-1" in platform.hub.records[cluster_record()].content)
        await a.crash()
        await b.mirror.caught_up(5)
        assert b.stores.certificates.remove_of("alpha") == 1
        await b.mirror.settled(5)
        await a.begin()
        await both(a, b)
        assert a.stores.certificates.get("1") is b.stores.certificates.get("1") is None

    run(work())


# --- what others put there


def test_what_a_later_release_wrote_stays_and_is_told(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await both(a, b)
        name = cluster_record()
        found = read(platform.hub.records[name].content)
        change_at_hub(platform, name, lambda row: row.update(shiny="new", phase="Terminating"))
        later = read(platform.hub.records[name].content)
        later = dataclasses.replace(later, versions={**found.versions, "clusters": 99})
        platform.hub.put(name, "cluster", dumped(later))
        await both(a, b)
        assert (known := a.stores.registry.get("alpha")) is not None
        assert known.phase == "Terminating"
        assert "a later Kulvert has written clusters: upgrade this replica" in (a.mirror.problem or "")
        a.stores.registry.mark("alpha", Mark.GATE, "mine")
        await both(a, b)
        now = read(platform.hub.records[name].content)
        assert now.tables["cluster"][0]["shiny"] == "new"
        assert now.versions["clusters"] == 99
        assert len(now.tables["cluster_mark"]) == 1

    run(work())


@pytest.mark.parametrize("kind", ["unknown", "garbage", "copied", "smuggled", "untyped"])
def test_what_is_not_understood_is_told_and_left_as_it_is(platform: Platform, kind: str) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await both(a, b)
        good = platform.hub.records[cluster_record()].content
        name, content = {
            "unknown": (name_of("kulvert", "planet", ("x",)), good.replace(b'"kind":"cluster"', b'"kind":"planet"')),
            "garbage": ("kulvert-cluster-x", b"\x00"),
            "copied": ("kulvert-cluster-copy", good),
            "smuggled": (name_of("kulvert", "cluster", ("beta",)), good.replace(b'"key":["alpha"]', b'"key":["beta"]')),
            "untyped": (cluster_record(), good.replace(b'"created":5.0', b'"created":"soon"')),
        }[kind]
        platform.hub.put(name, "cluster", content)
        await both(b)
        assert f"1 records of the hub cannot be taken; {name}" in (b.mirror.problem or "")
        assert names(a) == names(b) == ["alpha"]
        assert platform.hub.records[name].content == content
        platform.hub.put(name, "cluster", good) if kind == "untyped" else platform.hub.drop(name)
        await both(a, b)

    run(work())


def test_a_document_that_is_too_large_is_told_and_holds_nobody_up(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        a.stores.registry.add(Cluster("large", None, 5.0, (("x", "y" * 800_000),)))
        a.stores.registry.add(Cluster("small", None, 5.0))
        with pytest.raises(MirrorUnavailable, match="a cluster cannot be shared: it has more than 700000 bytes"):
            await a.mirror.settled(5)
        await b.mirror.caught_up(5)
        assert names(b) == ["small"]

    run(work())


def test_nothing_is_shared_any_more_where_the_hubs_records_are_wiped(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await both(a, b)
        for name in ("kulvert-mirror", cluster_record()):
            platform.hub.drop(name)
        a.stores.registry.add(Cluster("beta", None, 5.0))
        with pytest.raises(MirrorUnavailable, match="kulvert-mirror of the hub is gone"):
            await a.mirror.settled(5)
        assert names(a) == ["alpha", "beta"]
        assert names(b) == ["alpha"]
        await a.crash()
        await a.begin()
        await b.crash()
        await b.begin()
        assert names(b) == ["alpha", "beta"], "the first to come again has brought it back"

    run(work())


def test_a_grant_that_two_replicas_changed_is_the_hubs_in_memory_too(platform: Platform) -> None:
    """Both gave it the same version, by which an unchanged one is not parsed again."""

    async def work() -> None:
        a, b = await platform.pair()
        for one in (a, b):
            put_grant(one, "g", 1, one.name)
        await asyncio.sleep(10)
        assert a.rows() == b.rows()
        found = [one.grants.get("g") for one in (a, b)]
        assert found[0] is not None
        assert found[0] == found[1]
        put_grant(a, "other", None, "x")
        assert (other := a.grants.get("other")) is not None
        assert other.version > found[0].version

    run(work())


def put_grant(replica: Replica, name: str, version: int | None, by: str) -> None:
    database = replica.stores.registry.database
    with database.writing() as connection:
        made = connection.execute(
            "INSERT INTO grant_change (at, by, name, change, spec) VALUES (1, ?, ?, '', '')", (by, name)
        ).lastrowid
        row = (name, version or made, "{}", "{}", None, by, 1.0, by, float(ord(by)))
        connection.execute("INSERT INTO stored_grant VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    with database.reading() as connection:
        replica.grants.take(replica.grants.read(connection))


def test_a_poll_reads_what_was_changed_and_nothing_else(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        for name in ("alpha", "beta"):
            a.stores.registry.add(Cluster(name, None, 5.0))
        await both(a, b)

        def never(_database: sqlite3.Connection) -> None:
            raise AssertionError("all was read")

        for store in (b.stores.registry, b.stores.certificates, b.stores.tokens, b.keys, b.grants):
            monkeypatch.setattr(store, "read", never)
        a.stores.registry.pin("alpha", "u", 1.0)
        a.stores.certificates.add(certificate("1", "alpha"), 1.0)
        a.stores.forget("beta")
        await both(a, b)
        assert names(b) == ["alpha"]
        assert b.stores.certificates.get("1") is not None

    run(work())


def test_what_the_hub_has_is_in_the_file_before_any_store_is_opened(platform: Platform) -> None:
    async def work() -> None:
        a = platform.replica("a")
        await a.begin()
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await a.mirror.settled(5)
        path, troubles = platform.directory / "new.db", Troubles()
        make_tables(path)
        file, member = DirectFile(MirrorFile(path, "kulvert")), Member("kulvert", "new", path)
        informer = MemoryInformer(platform.hub, troubles)
        mirror = Mirror(file, MemoryRecords(platform.hub, troubles), informer, member, lambda: None, lambda: 0.5)
        task = asyncio.create_task(mirror.run())
        await mirror.synced.wait()
        stores = Stores.open(path)
        assert [cluster.name for cluster in stores.registry.list()] == ["alpha"]
        stores.close()
        task.cancel()
        await asyncio.wait([task])
        await mirror.close()

    run(work())


def test_a_server_that_is_alone_again_notes_nothing_and_the_hub_counts_when_it_comes_back(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await both(a, b)
        await b.crash()
        stop_sharing(b.path)
        single_server(b.path, "mine")
        with sqlite3.connect(b.path) as database:
            assert database.execute("SELECT count(*) FROM mirror_outbox").fetchone() == (0,)
        database.close()
        await b.begin()
        assert names(b) == ["alpha"]
        assert len(list(platform.directory.glob("b.before-hub.*"))) == 1

    run(work())


def test_a_mirror_that_begins_again_within_its_process_joins_what_there_is_now(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await both(a, b)
        for name in ("kulvert-mirror", cluster_record()):
            platform.hub.drop(name)
        for one in (a, b):
            await one.run_again()
        await asyncio.sleep(5)
        await both(a, b)
        assert names(a) == names(b) == ["alpha"]

    run(work())


def test_what_came_from_the_hub_is_not_brought_there_again(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        noted: list[int] = []

        def applied() -> None:
            with b.stores.registry.database.reading() as database:
                noted.append(database.execute("SELECT count(*) FROM mirror_outbox").fetchone()[0])

        monkeypatch.setattr(b.mirror, "_applied", applied)
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await both(a, b)
        a.stores.registry.pin("alpha", "u", 6.0)
        await both(a, b)
        a.stores.forget("alpha")
        await both(a, b)
        assert noted == [0, 0, 0]
        assert {name for method, name in platform.records["b"].asked if method != "GET"} <= {"kulvert-mirror"}

    run(work())


def test_a_grant_has_a_version_above_those_that_others_gave(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        put_grant(a, "g", 70, "x")
        await both(a, b)
        put_grant(b, "h", None, "y")
        assert (made := b.grants.get("h")) is not None
        assert made.version > 70

    run(work())


def test_what_cannot_be_merged_is_not_tried_in_a_circle(platform: Platform) -> None:
    async def work() -> None:
        a, b = await platform.pair()
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await both(a, b)
        platform.hub.put(cluster_record(), "cluster", b"garbage")
        a.stores.registry.pin("alpha", "u", 6.0)
        before = len(platform.records["a"].asked)
        with pytest.raises(MirrorUnavailable, match="it is malformed"):
            await a.mirror.settled(20)
        assert len(platform.records["a"].asked) - before < 40
        platform.hub.drop(cluster_record())
        await both(a, b)
        assert a.rows() == b.rows()

    run(work())
