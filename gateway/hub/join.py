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
from typing import Final

from gateway.database import RegistryError
from gateway.hub.autojoin import KEY, LOOK, Installer, target_in
from gateway.hub.clusters import EVENTS, Declared, event
from gateway.hub.managedstatus import FAILED
from gateway.hub.objects import HubObjects, HubUnavailable, secret_path
from gateway.joining.install import JoinFailed
from gateway.keyedtasks import KeyedTasks

AGAIN: Final = 600.0
"""Seconds after which a cluster that has joined is looked at again: its Secret may have been made anew."""
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


class HubJoin:
    """`items` are the informer's; `run` is its life. Where `leading` says no, another replica does it. `said` hears a
    name whose `failure` has changed.
    """

    def __init__(
        self,
        namespaces: Collection[str],
        installer: Installer,
        hub: HubObjects,
        items: Callable[[], Mapping[str, Declared]],
        wall: Callable[[], float],
        said: Callable[[str], None] = lambda _name: None,
        leading: Callable[[], bool] = lambda: True,
        look: float = LOOK,
    ) -> None:
        """`namespaces` are those of the hub in which Secrets with kubeconfigs may be."""
        self._namespaces = tuple(namespaces)
        self._installer = installer
        self._hub = hub
        self._items = items
        self._wall = wall
        self._said = said
        self._leading = leading
        self._look = look
        self._attempts: dict[str, _Attempt] = {}
        self._tasks = KeyedTasks[str](_AT_ONCE)

    def failure(self, name: str) -> str:
        """Why it has not joined, or an empty text."""
        attempt = self._attempts.get(name)
        return attempt.failure if attempt is not None else ""

    async def run(self) -> None:
        """Until cancelled; what is under way then ends with it."""
        try:
            while True:
                self.look()
                await asyncio.sleep(self._look)
        finally:
            await self._tasks.close()

    async def settled(self) -> None:
        """Waits for what is under way."""
        await self._tasks.settled()

    def look(self) -> None:
        """Starts what is due."""
        wanted = {name: one.secret for name, one in self._items().items() if one.secret} if self._leading() else {}
        self._attempts = {
            name: before if (before := self._attempts.get(name)) and before.secret == secret else _Attempt(secret)
            for name, secret in wanted.items()
        }
        for name in wanted:
            if self._tasks.full:
                return
            if name not in self._tasks and self._wall() >= self._attempts[name].due:
                self._tasks.begin(name, self._work(name), f"join cluster {name}")

    async def _work(self, name: str) -> None:
        attempt, found = self._attempts[name], self._items()[name]
        failure = await self._tried(found, attempt)
        await self._tell(found, attempt.failure, failure)
        attempt.failure, now = failure, self._wall()
        attempt.count = attempt.count + 1 if failure else 0
        pause = min(_PAUSE[1], _PAUSE[0] * 2 ** min(attempt.count, 10)) if failure else AGAIN
        attempt.due = now + (pause if found.accepts else self._look)
        self._said(name)

    async def _tried(self, found: Declared, attempt: _Attempt) -> str:
        """Why it has failed, or an empty text."""
        try:
            if found.accepts and not found.deleting:
                await self._join(found.name, attempt.secret)
        except (JoinFailed, HubUnavailable, RegistryError) as error:
            return str(error)
        except Exception as error:  # a bug in one cluster's affairs ends nobody else's
            _log.exception("a cluster cannot join", extra={"cluster": found.name})
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

    async def _tell(self, found: Declared, before: str, failure: str) -> None:
        if failure == before:
            return
        kind, reason, message = ("Warning", FAILED, failure) if failure else ("Normal", "Joined", "the cluster joined")
        if failure:
            _log.warning("a cluster cannot join", extra={"cluster": found.name, "error": failure})
        try:
            await self._hub.ask("POST", EVENTS, event(found, kind, reason, message, self._wall()))
        except HubUnavailable:
            _log.warning("an Event cannot be written at the hub")
