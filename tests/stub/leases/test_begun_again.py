"""A replica whose look at the Leases met a bug is begun again: it holds anew what nobody has taken, and serves it."""

from __future__ import annotations

import asyncio

import pytest

from stub.leases.elected import Elected
from stub.leases.lease import Lease
from stub.leases.settings import LeaseSettings
from stub.leases.sharded import Sharded
from tests.stub.leases.world import SHARDED, STANDBY, Process, world

PAUSE = 5.0
KINDS = pytest.mark.parametrize(("kind", "settings"), [(Elected, STANDBY), (Sharded, SHARDED)], ids=["one", "shards"])


def fails_once(process: Process[Elected | Sharded], call: str) -> list[asyncio.Task[None]]:
    """As `gateway.wiring.tasks` begins it again."""
    kept, lives = getattr(process.store, call), [process.life]

    async def bad(*_: object) -> Lease:
        setattr(process.store, call, kept)
        raise RuntimeError("a bug")

    async def again(life: asyncio.Task[None]) -> None:
        await asyncio.gather(life, return_exceptions=True)
        lives.append(life)
        await asyncio.sleep(PAUSE)
        await process.owner.run()

    setattr(process.store, call, bad)
    process.life = process.loop.create_task(again(process.life))
    return lives


@KINDS
@pytest.mark.parametrize("call", ["put", "list"])
def test_after_a_failure_it_holds_and_serves_in_a_new_holding(
    kind: type[Elected] | type[Sharded], settings: LeaseSettings, call: str
) -> None:
    with world(kind, settings) as within:
        process = within.start("a")
        within.run(20)
        cluster = within.clusters[0]
        before = process.owner.place(cluster)
        assert before.mine
        lives = fails_once(process, call)
        within.run(20, lambda: len(lives) == 2)
        assert isinstance(lives[0].exception(), ExceptionGroup)
        assert not process.owner.place(cluster).mine
        assert not process.owner.leading
        within.run(PAUSE + 20)
        after = process.owner.place(cluster)
        assert after.mine
        assert after.epoch > before.epoch
        assert process.owner.leading
        assert process.owner.problem is None


@KINDS
def test_what_another_has_taken_meanwhile_is_its_own(
    kind: type[Elected] | type[Sharded], settings: LeaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.stub.leases.test_begun_again.PAUSE", 12.0)
    with world(kind, settings) as within:
        process = within.start("a")
        within.run(20)
        other = within.start("b")
        within.run(20)
        fails_once(process, "put")
        within.run(11)
        assert all(other.owner.place(one).mine for one in within.clusters)
        within.run(40)  # in each tick the world looks for two holders, and for epochs that do not rise
        assert within.all_owned()
        assert kind is Sharded or other.owner.place(within.clusters[0]).mine
        assert process.owner.leader() == other.owner.leader() != ""
        assert process.owner.problem is None


@KINDS
def test_who_cannot_look_for_longer_than_a_lease_lasts_is_blind(
    kind: type[Elected] | type[Sharded], settings: LeaseSettings
) -> None:
    with world(kind, settings) as within:
        process, other = within.start("a"), within.start("b")
        within.run(20)
        assert (process.owner.sees, process.owner.blind) == (True, False)
        process.store.down = True
        within.run(2.0)
        assert not process.owner.blind
        within.run(1.5)
        assert not process.owner.sees
        within.run(1.6)
        assert process.owner.blind
        assert (other.owner.sees, other.owner.blind) == (True, False)
        process.store.down = False
        within.run(2.0)
        assert (process.owner.sees, process.owner.blind) == (True, False)
