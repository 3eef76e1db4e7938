"""Does the removals that are on record: one task for each cluster that can go on, begun by a look once a second."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

import structlog

from gateway.keyedtasks import KeyedTasks
from gateway.membership.registry import RegistryError
from gateway.membership.removals import Facts, Move, Next, Removal, Step, next_move
from gateway.membership.stores import Stores
from tunnel.calls import CallFailed, Params

log = structlog.get_logger("kulvert.removal")

CLEANUP: Final = "cluster.cleanup"
UNINSTALL: Final = "cluster.uninstall"
PATIENCE: Final = 60.0
"""Seconds for an agent to clean up, or to uninstall itself."""
AGAIN: Final = 10.0
"""Seconds until a step that failed is tried again."""
QUIET: Final = 30.0
"""Seconds after which an agent that was told to uninstall itself, and is not there, has done so."""
AT_ONCE: Final = 16
"""Clusters that are being cleaned up at a time."""
_MAX_NAMES: Final = 200


class Agent(Protocol):
    """An attached agent (`stub.session.Session`)."""

    async def call(self, method: str, params: Params, timeout: float) -> Params:
        """Raises CallFailed."""
        ...


Agents = Callable[[str], Sequence[Agent]]
Known = Callable[[str], Iterable[str]]
Clean = Callable[[str, str], Awaitable[object]]


async def nothing(_cluster: str, _by: str) -> None:
    """There is nothing of the server's to clean up."""


class Remover:
    """`agents` are a cluster's that are attached, `known` the objects that Kulvert has made there, by name; `clean`
    ends what the server keeps up in a cluster, for whoever asked: what it leaves is `known` still. An owner of tasks:
    `close` ends them, and what they have not done is done after the next start.
    """

    def __init__(
        self,
        stores: Stores,
        agents: Agents,
        wall: Callable[[], float],
        known: Known = lambda _cluster: (),
        clean: Clean = nothing,
    ) -> None:
        self._stores = stores
        self._clean = clean
        self._agents = agents
        self._wall = wall
        self._known = known
        self._began = wall()
        self._tasks = KeyedTasks[str](AT_ONCE)
        self._again: dict[str, float] = {}
        self._attached: dict[str, float] = {}
        """When an agent of a cluster that is being removed was last there."""

    def look(self) -> None:
        """Goes on with every removal that can."""
        now, wishes = self._wall(), self._stores.removals.unfinished()
        before, names = self._attached, [one.cluster for one in wishes]
        self._attached = {name: now if self._agents(name) else before.get(name, 0.0) for name in names}
        for name in names:
            if self._tasks.full:
                return
            if name not in self._tasks and not now < self._again.get(name, 0.0) <= now + AGAIN:
                self._tasks.begin(name, self._run(name), f"remove cluster {name}")

    async def close(self) -> None:
        """Ends the tasks."""
        await self._tasks.close()

    async def _run(self, name: str) -> None:
        """Until it is done, or has to wait."""
        self._again.pop(name, None)
        try:
            while (removal := self._stores.removals.get(name)) is not None and removal.finished is None:
                found = next_move(removal, self.facts(name))
                if found is None or not await self._take(removal, found):
                    return
        except Exception as error:
            shown = {"error": str(error)} if isinstance(error, RegistryError) else {"exc_info": error}
            log.error("the removal of a cluster goes on later", cluster=name, **shown)
            self._again[name] = self._wall() + AGAIN

    def facts(self, name: str) -> Facts:
        """What the next step depends on."""
        cluster = self._stores.registry.get(name)
        joined = cluster is not None and cluster.uid is not None
        finalizers = cluster.finalizers if cluster is not None else ()
        removal = self._stores.removals.get(name)
        told = removal.told if removal is not None and removal.told is not None else self._began
        quiet = self._wall() - max(told, self._began, self._attached.get(name, 0.0)) >= QUIET
        return Facts(joined, bool(self._agents(name)), finalizers, tuple(self._known(name))[:_MAX_NAMES], quiet)

    async def _take(self, removal: Removal, found: Next) -> bool:
        """One move; whether the next one may follow at once."""
        if found.move is Move.WAIT:
            self._wait(removal, found.message)
            return False
        if found.move is Move.CALL:
            return await self._call(removal, found.step)
        take(self._stores, removal, found, self._wall())
        return True

    def _wait(self, removal: Removal, message: str) -> None:
        self._stores.removals.put(replace(removal, waiting=message))

    async def _call(self, removal: Removal, step: Step) -> bool:
        """The agent does it, and says what it could not."""
        removals, name = self._stores.removals, removal.cluster
        method = CLEANUP if step is Step.CLEANED else UNINSTALL
        if step is Step.UNINSTALLED:
            removal = removals.put(replace(removal, told=self._wall(), waiting="for the agent to uninstall itself"))
        if step is Step.CLEANED:
            await self._clean(name, removal.by)
        known = list(self.facts(name).known)
        try:
            report = await self._agents(name)[0].call(method, {"known": known}, PATIENCE)
        except (CallFailed, IndexError) as failed:
            if isinstance(failed, CallFailed) and failed.reason not in ("closed", "timeout"):
                removal = removals.put(replace(removals.get(name) or removal, told=None))  # it is there, and stays
            return self._failed(removal, step, str(failed) or "no agent is attached")
        deleted, left = _names(report, "deleted"), _names(report, "left")
        left += tuple(f"{one}, perhaps" for one in known if step is Step.CLEANED and one not in (*deleted, *left))
        current = removals.get(name) or removal  # --force may have come meanwhile
        unseen = [one.partition(":")[0] for one in _names(report, "unseen")]
        message = f"{len(deleted)} objects deleted" + (f", {len(left)} left" if left else "")
        message += f" (the agent may not list {', '.join(unseen)})" if unseen else ""
        removals.put(current.after(step, self._wall(), message, left))
        return True

    def _failed(self, removal: Removal, step: Step, why: str) -> bool:
        log.warning("an agent did not do its part of a removal", cluster=removal.cluster, step=step.value, error=why)
        current = self._stores.removals.get(removal.cluster) or removal
        if current.force:
            found = next_move(replace(current, told=None), replace(self.facts(removal.cluster), attached=False))
            assert found is not None
            take(self._stores, current, replace(found, message=f"forced: {why}"), self._wall())
            return True
        self._wait(current, f"to try again: {why} (--force goes on without)")
        self._again[removal.cluster] = self._wall() + AGAIN
        return False


def take(stores: Stores, removal: Removal, found: Next, now: float) -> Removal:
    """A move that needs no agent."""
    if found.step is Step.CLOSED:
        if stores.registry.get(removal.cluster) is not None:
            stores.registry.terminate(removal.cluster)
        message = "users are not let through any more"
    elif found.step is Step.RELEASED:
        _forget(stores, removal.cluster)
        message = "certificates and join tokens revoked, the name is free"
    else:
        message = found.message or "nothing to wait for"
    return stores.removals.put(removal.after(found.step, now, message, found.left))


def _forget(stores: Stores, name: str) -> None:
    """Where a server ended before it had written down that it was done, the name may be a new cluster's already."""
    cluster = stores.registry.get(name)
    if cluster is None or cluster.phase:
        stores.forget(name)


def remove_offline(stores: Stores, name: str, now: float, known: Iterable[str] = ()) -> Removal:
    """All that can be done where no server runs, so that no agent is attached. Its `waiting` says where it stops."""
    removal = stores.removals.get(name)
    assert removal is not None, "a removal that nobody has asked for"
    while removal.finished is None:
        cluster = stores.registry.get(name)
        finalizers = cluster.finalizers if cluster is not None else ()
        joined = cluster is not None and cluster.uid is not None
        found = next_move(removal, Facts(joined, False, finalizers, tuple(known)))
        if found is None or found.move is Move.WAIT:
            return stores.removals.put(replace(removal, waiting=found.message if found else ""))
        removal = take(stores, removal, found, now)
    return removal


def _names(report: Params, key: str) -> tuple[str, ...]:
    """A peer's list of names, for people: bounded, and printable."""
    listed: Any = report.get(key, [])
    if not isinstance(listed, list):
        return ()
    texts = [one[:512] for one in listed[:_MAX_NAMES] if isinstance(one, str)]
    return tuple("".join(c if c.isprintable() else " " for c in one) for one in texts)
