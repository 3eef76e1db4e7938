"""Keeps managed service accounts as they are wanted: a token in its place, made anew before it ends; deletions done.

    wanted ──(the agent makes account and token)──► projected ──(three quarters of its life)──► made anew, …
    deleted ──► its token is taken away at once ──(the agent deletes the account, and all its tokens)──► forgotten

A token is in memory between the agent's answer and its place, and nowhere else: in no log, no audit record, no store.
What fails is tried again with growing pauses, and shows as a condition.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from auth.identity import Identity
from gateway.audit.events import RESPONSE_COMPLETE, AuditRecord, Client
from gateway.audit.lines import Lines
from gateway.database import RegistryError
from gateway.keyedtasks import KeyedTasks
from gateway.membership.registry import Change, Cluster
from gateway.serviceaccounts.files import Projection, ProjectionError
from gateway.serviceaccounts.store import Key, Managed, ServiceAccountStore, State
from tunnel.calls import CallFailed, Params
from tunnel.requestinfo import RequestInfo

TOKEN: Final = "serviceaccount.token"  # noqa: S105 -- a method's name
DELETE: Final = "serviceaccount.delete"
ROTATE_AT: Final = 0.75
"""Of a token's life: the kubelet rotates at 0.8, and whoever reads the file has time to notice."""
ISSUED: Final = "TokenReported"
FAILED: Final = "Failed"
PROJECTION_FAILED: Final = "ProjectionFailed"
SOURCE: Final = "kulvert-serviceaccounts"
_PAUSE: Final = (5.0, 300.0)
_AT_ONCE: Final = 16
_MOST_TOKEN: Final = 16_384

_log = logging.getLogger(__name__)

Call: TypeAlias = Callable[[str, str, Params], Awaitable[Params]]
"""(cluster, method, params): asks an agent of that cluster. Raises CallFailed."""


@dataclass(frozen=True, slots=True)
class ServiceAccountSettings:
    """Off by default: a projected token is a credential of a managed cluster, kept on this side."""

    enabled: bool = False
    directory: Path | None = None
    """Where files with tokens go; without it, `serviceaccounts` in the state directory."""
    secret_namespaces: tuple[str, ...] = ()
    """Namespaces of the hub in which tokens may go into Secrets; the server needs a role in each (charts/)."""


class Audit(Protocol):
    """gateway.audit.log.AuditLogs: no token is made that nobody can record."""

    def record(self, line: bytes) -> None: ...
    def ready(self) -> bool: ...


class ServiceAccountKeeper:
    """`run` is its whole life. `new_id` makes audit ids, `wall` tells the time that tokens expire by. Of several
    replicas the one that is `leading` does it: when it begins to, it drops those of clusters that are not `registered`.
    """

    def __init__(
        self,
        store: ServiceAccountStore,
        projection: Projection,
        call: Call,
        audit: Audit,
        new_id: Callable[[], str],
        wall: Callable[[], float],
        look: float = 1.0,
        leading: Callable[[], bool] = lambda: True,
        registered: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self._store = store
        self._projection = projection
        self._call = call
        self._audit = audit
        self._new_id = new_id
        self._wall = wall
        self._look = look
        self._leading = leading
        self._registered = registered
        self._led = False
        self._lines = Lines()
        self._failures: dict[Key, tuple[int, float]] = {}
        self._tasks = KeyedTasks[Key](_AT_ONCE)
        self._dropped: set[Key] = set()
        """Of clusters that are not registered any more."""

    async def run(self) -> None:
        """Until cancelled; what is under way then ends with it."""
        try:
            while True:
                self.look()
                await asyncio.sleep(self._look)
        finally:
            await self._tasks.close()

    def look(self) -> None:
        """Starts what is due. One cluster that does not answer delays no other."""
        if not self._leads():
            return
        for managed in self._store.list():
            if self._tasks.full:
                return
            if managed.wanted.key not in self._tasks and self._due(managed):
                self._begin(managed)

    def _begin(self, managed: Managed) -> None:
        key = managed.wanted.key
        self._tasks.begin(key, self._work(managed), f"service account {key}")

    def _leads(self) -> bool:
        """What another replica has dropped meanwhile, and whether it was made anew since, is not known here."""
        led, self._led = self._led, self._leading()
        if not self._led:
            self._dropped.clear()
        elif not led and self._registered is not None:
            self.keep_only(self._registered())
        return self._led

    async def settled(self) -> None:
        """Waits for what is under way."""
        await self._tasks.settled()

    async def clean_up(self, cluster: str, asked_by: str) -> tuple[Managed, ...]:
        """Deletes all of a cluster's, through its tunnel, as long as there is one; gives those that are left."""
        for managed in self._of(cluster):
            key = managed.wanted.key
            marked = self._store.delete(key, asked_by, self._wall())
            if key not in self._tasks:
                self._begin(marked)
            await self._tasks.settled([key])
        return self._of(cluster)

    def keep_only(self, clusters: Iterable[str]) -> None:
        """Drops those of clusters that are not registered: the command may have removed some while no server ran."""
        for cluster in {managed.wanted.cluster for managed in self._store.list()} - set(clusters):
            self._drop(cluster)

    def changed(self, change: Change, cluster: Cluster) -> None:
        """A registry's subscriber: the tokens of a cluster that was removed go with it, at the next look. Its accounts
        were cleaned up through the tunnel before, or are the owner's to delete.
        """
        if change is Change.REMOVED:
            self._drop(cluster.name)

    def _drop(self, cluster: str) -> None:
        keys = {managed.wanted.key for managed in self._of(cluster)}
        self._dropped |= keys
        for key in keys:
            self._failures.pop(key, None)

    def _of(self, cluster: str) -> tuple[Managed, ...]:
        return tuple(one for one in self._store.list() if one.wanted.cluster == cluster)

    def _due(self, managed: Managed) -> bool:
        now = self._wall()
        count, failed = self._failures.get(managed.wanted.key, (0, 0.0))
        # The lower bound is for a clock that was set back.
        if count and failed <= now < failed + _pause(count) and managed.deleted <= failed:
            return False
        gone = bool(managed.deleted) or managed.wanted.key in self._dropped
        return gone or now >= rotates(managed.state) or not self._is_present(managed)

    def _is_present(self, managed: Managed) -> bool:
        try:
            return self._projection.present(managed.wanted, managed.state.issued)
        except (OSError, ProjectionError):
            return False

    async def _work(self, managed: Managed) -> None:
        key = managed.wanted.key
        try:
            await self._do(managed)
            self._failures.pop(key, None)
        except CallFailed as failed:
            self._failed(managed, FAILED, f"{failed.reason}: {failed}")
        except ProjectionError as error:
            self._failed(managed, PROJECTION_FAILED, str(error))
        except OSError as error:
            self._failed(managed, PROJECTION_FAILED, f"the token's file: {error.strerror or type(error).__name__}")
        except RegistryError as error:
            self._failed(managed, FAILED, str(error))
        except Exception as error:  # a bug in one account's affairs ends nobody else's
            _log.exception("a managed service account cannot be looked after", extra={"cluster": key[0]})
            self._failed(managed, FAILED, f"internal error ({type(error).__name__})")

    async def _do(self, managed: Managed) -> None:
        if managed.wanted.key in self._dropped:
            await self._gone(managed)
        elif managed.deleted:
            await self._delete(managed)
        else:
            await self._issue(managed)

    async def _issue(self, managed: Managed) -> None:
        wanted = managed.wanted
        if not self._audit.ready():
            raise CallFailed("audit", "the audit log cannot be written, so no token is made")
        params = {
            "namespace": wanted.namespace,
            "name": wanted.name,
            "audiences": list(wanted.audiences),
            "seconds": int(wanted.lifetime),
        }
        now = self._wall()
        answer = await self._call(wanted.cluster, TOKEN, params)
        token, expires, uid = _read(answer, now, wanted.lifetime)
        self._record(managed, "create", "token", f"a token for {wanted.holder!a}, until {expires:.0f}")
        current = self._store.get(wanted.key)
        gone = current is None or current.deleted or wanted.key in self._dropped
        if gone or current is None or current.wanted != wanted:
            return  # somebody changed his mind meanwhile: this token goes nowhere
        await self._projection.write(wanted, token, now)
        self._store.set_state(managed, State(now, expires, uid, ISSUED, "", now))

    async def _delete(self, managed: Managed) -> None:
        """The token first: whatever the cluster says, its holder has it no longer."""
        wanted = managed.wanted
        await self._projection.remove(wanted)
        await self._call(wanted.cluster, DELETE, {"namespace": wanted.namespace, "name": wanted.name})
        self._record(managed, "delete", "", f"deleted, of the holder {wanted.holder!a}")
        self._store.forget(wanted.key)

    async def _gone(self, managed: Managed) -> None:
        await self._projection.remove(managed.wanted)
        self._store.forget(managed.wanted.key)
        self._dropped.discard(managed.wanted.key)

    def _failed(self, managed: Managed, reason: str, error: str) -> None:
        key, now = managed.wanted.key, self._wall()
        count = self._failures.get(key, (0, 0.0))[0] + 1
        self._failures[key] = count, now
        extra = {"cluster": key[0], "account": f"{key[1]}/{key[2]}", "error": error}
        _log.warning("a managed service account is not as it should be", extra=extra)
        current = self._store.get(key)
        if current is None or (current.state.reason, current.state.error) == (reason, error):
            return
        try:
            self._store.set_state(current, replace(current.state, reason=reason, error=error[:512], changed=now))
        except RegistryError as refused:
            _log.warning("how a managed service account is cannot be written down", exc_info=refused)

    def _record(self, managed: Managed, verb: str, subresource: str, reason: str) -> None:
        """As if whoever asked had done it himself at the API server. Never with the token."""
        wanted, now = managed.wanted, self._wall()
        path = f"/api/v1/namespaces/{wanted.namespace}/serviceaccounts/{wanted.name}"
        path += f"/{subresource}" if subresource else ""
        info = RequestInfo(verb, path, True, "", "v1", wanted.namespace, "serviceaccounts", subresource, wanted.name)
        who = Identity(managed.asked_by, (), "", (), SOURCE, "", 0.0)
        client = Client(identity=who, cluster=wanted.cluster, allowed=True, rule="managed service account")
        code = 201 if verb == "create" else 200
        record = AuditRecord(
            self._new_id(), RESPONSE_COMPLETE, now, now, 0.0, info, path.encode(), client, code, 0, 0, reason=reason
        )
        self._audit.record(self._lines.line(record))


def _pause(failures: int) -> float:
    return float(min(_PAUSE[1], _PAUSE[0] * 2 ** min(failures - 1, 10)))


def rotates(state: State) -> float:
    """When a token is made anew, epoch seconds; at once where there is none."""
    return state.issued + ROTATE_AT * (state.expires - state.issued) if state.expires else 0.0


def _read(answer: Params, now: float, lifetime: float) -> tuple[str, float, str]:
    """(token, expires, uid). An agent's word is not trusted to keep us from rotating, or to have us rotate all day.

    :raises CallFailed: it is no answer.
    """
    token: Any = answer.get("token")
    expires: Any = answer.get("expires")
    if (
        not isinstance(token, str)
        or not 0 < len(token) <= _MOST_TOKEN
        or not token.isascii()
        or not token.isprintable()
    ):
        raise CallFailed("answer", "the agent's answer holds no token")
    if not isinstance(expires, int | float) or isinstance(expires, bool) or not now < expires < now + 10 * 86_400:
        raise CallFailed("answer", "the agent's answer does not say until when the token is good")
    end = min(max(float(expires), now + 60.0), now + max(lifetime, 600.0))
    return token, end, str(answer.get("uid", ""))[:64]
