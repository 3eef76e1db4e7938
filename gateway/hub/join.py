"""Clusters that join by declaration: a ManagedCluster of the hub names a Secret with a kubeconfig; the agent is
installed with it, and once an agent is available the Secret is deleted.

    annotated, hubAcceptsClient ──(kubeconfig read, agent applied)──► joined ──(available)──► Secret deleted
        └── anything fails: told in the conditions and in an Event, and tried again with growing pauses

A kubeconfig is in memory for as long as the agent's objects are applied, and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from gateway.database import RegistryError
from gateway.hub.autojoin import KEY, LOOK, Installer, target_in
from gateway.hub.clusters import EVENTS, FAILED, accepts, event, secret_of, status_path, told
from gateway.hub.objects import HubObjects, HubUnavailable, secret_path
from gateway.hub.watch import Object
from gateway.joining.install import JoinFailed
from gateway.membership.registry import ClusterRegistry

AGAIN: Final = 600.0
"""Seconds after which a cluster that has joined is looked at again: its Secret may have been made anew."""
TELL: Final = 5.0
"""Seconds between two writes of one status: who else writes it is not fought all the time."""
_PAUSE: Final = (5.0, 300.0)
_AT_ONCE: Final = 16
"""Most of the time they wait for an agent to be available."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Attempt:
    """What became of one ManagedCluster and one annotation."""

    secret: str
    due: float = 0.0
    count: int = 0
    failure: str = ""
    told: float = 0.0


class HubJoin:
    """`changed` takes what `gateway.hub.watch.HubWatch` has read; `run` is its life."""

    def __init__(
        self,
        namespaces: Collection[str],
        installer: Installer,
        registry: ClusterRegistry,
        hub: HubObjects,
        wall: Callable[[], float],
        look: float = LOOK,
    ) -> None:
        """`namespaces` are those of the hub in which Secrets with kubeconfigs may be."""
        self._namespaces = tuple(namespaces)
        self._installer = installer
        self._registry = registry
        self._hub = hub
        self._wall = wall
        self._look = look
        self._objects: Mapping[str, Object] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def changed(self, objects: Mapping[str, Object]) -> None:
        """All ManagedClusters, by name."""
        self._objects = objects

    async def run(self) -> None:
        """Until cancelled; what is under way then ends with it."""
        try:
            while True:
                self.look()
                await asyncio.sleep(self._look)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def settled(self) -> None:
        """Waits for what is under way."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def look(self) -> None:
        """Starts what is due."""
        wanted = {name: secret for name, one in self._objects.items() if (secret := secret_of(one))}
        self._attempts = {
            name: before if (before := self._attempts.get(name)) and before.secret == secret else _Attempt(secret)
            for name, secret in wanted.items()
        }
        for name in wanted:
            if len(self._tasks) >= _AT_ONCE:
                return
            if name not in self._tasks and self._is_due(name):
                task = asyncio.get_running_loop().create_task(self._work(name), name=f"join cluster {name}")
                self._tasks[name] = task
                task.add_done_callback(partial(self._done, name))

    def _done(self, name: str, _task: asyncio.Task[None]) -> None:
        del self._tasks[name]

    def _is_due(self, name: str) -> bool:
        attempt, now = self._attempts[name], self._wall()
        return now >= attempt.due or (now >= attempt.told + TELL and self._news(name, attempt) is not None)

    async def _work(self, name: str) -> None:
        attempt, document = self._attempts[name], self._objects[name]
        if self._wall() >= attempt.due:
            await self._tell_status(name, attempt)
            failure = await self._tried(document, attempt)
            await self._tell_event(document, attempt.failure, failure)
            attempt.failure, now = failure, self._wall()
            attempt.count = attempt.count + 1 if failure else 0
            pause = min(_PAUSE[1], _PAUSE[0] * 2 ** min(attempt.count, 10)) if failure else AGAIN
            attempt.due = now + (pause if accepts(document) else self._look)
        await self._tell_status(name, attempt)

    async def _tried(self, document: Object, attempt: _Attempt) -> str:
        """Why it has failed, or an empty text."""
        try:
            if accepts(document):
                await self._join(document["metadata"]["name"], attempt.secret)
        except (JoinFailed, HubUnavailable, RegistryError) as error:
            return str(error)
        except Exception as error:  # a bug in one cluster's affairs ends nobody else's
            _log.exception("a cluster cannot join", extra={"cluster": document["metadata"]["name"]})
            return f"internal error ({type(error).__name__})"
        return ""

    # --- joining

    async def _join(self, name: str, secret: str) -> None:
        """Raises JoinFailed, HubUnavailable, RegistryError."""
        path = self._path(secret)
        found = await self._hub.get(path)
        if found is None:
            if not self._installer.has_joined(name):
                raise JoinFailed(f"there is no Secret {secret}: make it, with the key {KEY}")
            return
        metadata = found["metadata"]
        target = await asyncio.to_thread(target_in, found)
        del found  # the credential is in the target alone, and that ends with the installation
        uid = await self._installer.install(name, target)
        del target
        await self._installer.available(name, uid)
        if not await self._hub.delete(path, {"metadata": metadata}):
            raise JoinFailed(f"Secret {secret} has changed meanwhile: it is used again")
        _log.info("a cluster has joined, and the Secret with its kubeconfig is deleted", extra={"cluster": name})

    def _path(self, secret: str) -> str:
        namespace, slash, name = secret.partition("/")
        if not slash or not name or "/" in name or namespace not in self._namespaces:
            allowed = ", ".join(self._namespaces)
            raise JoinFailed(f"the annotation names no Secret as NAMESPACE/NAME in one of: {allowed}")
        return secret_path(namespace, name)

    # --- what is told at the hub

    def _news(self, name: str, attempt: _Attempt) -> dict[str, Any] | None:
        return told(self._objects[name], self._registry.get(name), attempt.failure, self._wall())

    async def _tell_status(self, name: str, attempt: _Attempt) -> None:
        """Where it cannot be written it is tried again, for the object is then what it was."""
        news = self._news(name, attempt) if name in self._objects else None
        if news is None:
            return
        attempt.told = self._wall()
        try:
            answer = await self._hub.ask("PUT", status_path(name), news)
        except HubUnavailable as error:
            _log.warning("the status of a ManagedCluster cannot be written", extra={"error": str(error)})
            return
        if answer.status not in (200, 404, 409):
            refused = str(answer.refused(f"the status of ManagedCluster {name}"))
            _log.warning("the status of a ManagedCluster cannot be written", extra={"error": refused})

    async def _tell_event(self, document: Object, before: str, failure: str) -> None:
        if failure == before:
            return
        kind, reason, message = ("Warning", FAILED, failure) if failure else ("Normal", "Joined", "the cluster joined")
        if failure:
            _log.warning("a cluster cannot join", extra={"cluster": document["metadata"]["name"], "error": failure})
        try:
            await self._hub.ask("POST", EVENTS, event(document, kind, reason, message, self._wall()))
        except HubUnavailable:
            _log.warning("an Event cannot be written at the hub")
