"""The managed service accounts, in the server's SQLite file: what is wanted of each, and how it is. Never a token."""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from gateway.database import Database, RegistryError
from gateway.membership.cluster import NAME

FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LIFETIME: Final = (600.0, 86_400.0)
"""Seconds: kube-apiserver gives no token for less, and the agent asks for none that lasts longer."""
AUDIENCES: Final = 8
_ACCOUNT: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SERVICE_ACCOUNT: Final = re.compile(r"([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)/([a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)")
_MAX_HOLDER: Final = 180  # as a directory's name, each character may take up to nine

_DELETE: Final = "DELETE FROM managed_service_account WHERE cluster = ? AND namespace = ? AND name = ?"
_MARK: Final = (
    "UPDATE managed_service_account SET deleted = ?, asked_by = ? WHERE cluster = ? AND namespace = ? AND name = ?"
)
_SET_STATE: Final = (
    "UPDATE managed_service_account SET state = ?"
    " WHERE cluster = ? AND namespace = ? AND name = ? AND audiences = ? AND lifetime = ?"
)

Key: TypeAlias = tuple[str, str, str]
"""Cluster, namespace, name."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asked for: a service account in a managed cluster, and where its token goes, for one holder.

    :raises RegistryError: a field cannot be as it is.
    """

    cluster: str
    namespace: str
    name: str
    holder: str
    """The user, as authenticated, who may use it. (NAMESPACE/NAME is short for a service account.)"""
    file: str = ""
    """The file's name, in the holder's own directory; empty where its token goes into a Secret."""
    audiences: tuple[str, ...] = ()
    lifetime: float = 3_600.0
    secret: str = ""
    """NAMESPACE/NAME of a Secret of the hub: whoever may read that has the token."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.cluster) or not NAME.fullmatch(self.namespace):
            raise RegistryError("cluster and namespace are names of a-z, 0-9 and -, at most 63 characters")
        if not _ACCOUNT.fullmatch(self.name) or ".." in self.name:
            raise RegistryError(f"{self.name[:80]!a} is no name of a service account")
        if (
            not 0 < len(self.holder) <= _MAX_HOLDER
            or not self.holder.isprintable()
            or self.holder.strip() != self.holder
        ):
            raise RegistryError(f"the holder is one user's name, of at most {_MAX_HOLDER} printable characters")
        if bool(self.file) == bool(self.secret):
            raise RegistryError("its token goes into a file, or into a Secret of the hub: name one of them")
        if self.secret and not _SERVICE_ACCOUNT.fullmatch(self.secret):
            raise RegistryError("the Secret is NAMESPACE/NAME, as Kubernetes names them")
        if self.file and not FILE.fullmatch(self.file):
            raise RegistryError("the file is a name without a directory, of letters, digits, dots, - and _")
        if not LIFETIME[0] <= self.lifetime <= LIFETIME[1]:
            raise RegistryError("a token is to live between 10m and 1d: it is made anew in time")
        if len(self.audiences) > AUDIENCES or not all(0 < len(a) <= 1_024 and a.isprintable() for a in self.audiences):
            raise RegistryError(f"audiences are at most {AUDIENCES} printable texts")

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.cluster, self.namespace, self.name


@dataclass(frozen=True, slots=True)
class State:
    """How it is. Times are epoch seconds, 0 where there is none; `error` is empty where the last attempt did it."""

    issued: float = 0.0
    expires: float = 0.0
    uid: str = ""
    reason: str = "Pending"
    error: str = ""
    changed: float = 0.0
    """When `reason` or `error` became what it is."""


@dataclass(frozen=True, slots=True)
class Managed:
    """One managed service account. `deleted` is when somebody asked for its deletion, or 0."""

    wanted: Wanted
    asked_by: str
    created: float
    deleted: float = 0.0
    state: State = field(default_factory=State)


_Content: TypeAlias = dict[Key, Managed]


class ServiceAccountStore:
    """All of them, from memory; a write is on the disk before it counts."""

    name = "managed service accounts"
    migrations: tuple[str, ...] = (
        """
        CREATE TABLE managed_service_account (
            cluster TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, holder TEXT NOT NULL,
            file TEXT NOT NULL, audiences TEXT NOT NULL, lifetime REAL NOT NULL, asked_by TEXT NOT NULL,
            created REAL NOT NULL, deleted REAL NOT NULL, state TEXT NOT NULL, secret TEXT NOT NULL,
            PRIMARY KEY (cluster, namespace, name)
        ) STRICT;
        CREATE UNIQUE INDEX managed_service_account_file ON managed_service_account (holder, file) WHERE file <> '';
        CREATE UNIQUE INDEX managed_service_account_secret ON managed_service_account (secret) WHERE secret <> '';
        """,
    )

    def __init__(self, database: Database) -> None:
        """:raises RegistryError: the file cannot be used."""
        self._database = database
        self._all: _Content = {}
        database.open(self)

    def get(self, key: Key) -> Managed | None:
        """One of them."""
        return self._all.get(key)

    def list(self) -> tuple[Managed, ...]:
        """All of them, by key."""
        return tuple(self._all[key] for key in sorted(self._all))

    def put(self, wanted: Wanted, asked_by: str, now: float) -> Managed:
        """Adds one, or changes audiences and lifetime of one; then its token is made anew.

        :raises RegistryError: it is another holder's, or has another file, or is being deleted.
        """
        before = self._all.get(wanted.key)
        if before is not None and before.deleted:
            raise RegistryError("this service account is being deleted: try again when it is gone")
        if before is not None and _place(before.wanted) != _place(wanted):
            raise RegistryError("it is another holder's, or in another place: delete it first, so that its token ends")
        if before is not None and before.wanted == wanted:
            return before
        created = before.created if before is not None else now
        managed = Managed(wanted, asked_by, created, 0.0, State(changed=now))
        with self._database.writing(
            "this holder has a file of that name already, or another token is in that Secret"
        ) as database:
            if before is not None:
                database.execute(_DELETE, wanted.key)
            values = (*wanted.key, wanted.holder, wanted.file, json.dumps(wanted.audiences), wanted.lifetime)
            row = (*values, asked_by, created, 0.0, _dumped(managed.state), wanted.secret)
            database.execute("INSERT INTO managed_service_account VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._all[wanted.key] = managed
        return managed

    def delete(self, key: Key, asked_by: str, now: float) -> Managed:
        """Has one deleted, in the cluster too: it is gone when that is done. :raises RegistryError: there is none."""
        managed = self._known(key)
        if managed.deleted:
            return managed
        marked = replace(managed, deleted=now, asked_by=asked_by)
        with self._database.writing() as database:
            database.execute(_MARK, (now, asked_by, *key))
        self._all[key] = marked
        return marked

    def set_state(self, managed: Managed, state: State) -> None:
        """Writes down how one is. :raises RegistryError: it is not wanted so any more, by whichever process."""
        wanted = managed.wanted
        audiences = json.dumps(wanted.audiences)
        with self._database.writing() as database:
            values = (_dumped(state), *wanted.key, audiences, wanted.lifetime)
            written = database.execute(_SET_STATE, values).rowcount
        if not written:
            raise RegistryError("it is not wanted like this any more")
        self._all[wanted.key] = replace(self._known(wanted.key), state=state)

    def forget(self, key: Key) -> None:
        """It is gone. Harmless where it was gone before."""
        with self._database.writing() as database:
            database.execute(_DELETE, key)
        self._all.pop(key, None)

    def read(self, database: sqlite3.Connection) -> _Content:
        """See `gateway.database.Store`."""
        rows = database.execute(
            "SELECT cluster, namespace, name, holder, file, audiences, lifetime, asked_by, created, deleted, state,"
            " secret FROM managed_service_account"
        )
        return {managed.wanted.key: managed for managed in map(_of_row, rows)}

    def take(self, content: _Content) -> None:
        """See `gateway.database.Store`."""
        self._all = dict(content)

    def _known(self, key: Key) -> Managed:
        if (managed := self._all.get(key)) is None:
            raise RegistryError(f"there is no managed service account {'/'.join(key[1:])} in cluster {key[0]}")
        return managed


def holder_of(text: str) -> str:
    """A holder as people write it: a user's name, or NAMESPACE/NAME for a service account of the hub."""
    match = _SERVICE_ACCOUNT.fullmatch(text)
    return f"system:serviceaccount:{match[1]}:{match[2]}" if match else text


def _place(wanted: Wanted) -> tuple[str, str, str]:
    return wanted.holder, wanted.file, wanted.secret


def _of_row(row: tuple[Any, ...]) -> Managed:
    cluster, namespace, name, holder, file, audiences, lifetime, asked_by, created, deleted, state, secret = row
    wanted = Wanted(cluster, namespace, name, holder, file, tuple(json.loads(audiences)), lifetime, secret)
    return Managed(wanted, asked_by, created, deleted, State(**json.loads(state)))


def _dumped(state: State) -> str:
    return json.dumps({name: getattr(state, name) for name in State.__slots__})
