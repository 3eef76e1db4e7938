"""The join tokens of a single server, in its SQLite file: which there are, and the keys that were enrolled with each.

A token may be limited in uses: a use is a key that got a certificate, so that an agent which asks again, since it lost
the answer, uses nothing up.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from auth.jointoken import StoredJoinToken
from gateway.database import Database, RegistryError

MOST = 10_000
"""Tokens that there may be at a time."""


@dataclass(frozen=True, slots=True)
class _Content:
    tokens: dict[str, StoredJoinToken]
    keys: dict[str, frozenset[str]]


class JoinTokens:
    """A `gateway.database.Store`."""

    name = "join-tokens"
    migrations: tuple[str, ...] = (
        """
        CREATE TABLE IF NOT EXISTS join_token (
            id TEXT PRIMARY KEY, key BLOB NOT NULL, cluster TEXT NOT NULL, expires REAL NOT NULL
        ) STRICT;
        """,
        """
        ALTER TABLE join_token ADD COLUMN created REAL NOT NULL DEFAULT 0;
        ALTER TABLE join_token ADD COLUMN uses INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE join_token ADD COLUMN accept INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE join_token ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
        CREATE TABLE join_token_key (
            token TEXT NOT NULL, fingerprint TEXT NOT NULL, PRIMARY KEY (token, fingerprint)
        ) STRICT;
        """,
    )

    def __init__(self, database: Database) -> None:
        """Opens it on a database. :raises RegistryError: the file is of a later version."""
        self._database = database
        self._tokens: dict[str, StoredJoinToken] = {}
        self._keys: dict[str, frozenset[str]] = {}
        database.open(self)

    def add(self, token: StoredJoinToken) -> None:
        """Keeps a token. :raises RegistryError: its id is taken, or there are too many."""
        if len(self._tokens) >= MOST:
            raise RegistryError(f"there are {MOST} join tokens: revoke some")
        labels = json.dumps(dict(token.labels))
        row = (token.id, token.key, token.cluster, token.expires, token.created, token.uses, token.accept, labels)
        with self._database.writing("there is a join token of this id already") as database:
            database.execute("INSERT INTO join_token VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._tokens[token.id] = token

    def get(self, token_id: str) -> StoredJoinToken | None:
        """A token by id, from memory: one that another process revoked is gone with the next poll."""
        return self._tokens.get(token_id)

    def list(self) -> tuple[StoredJoinToken, ...]:
        """All tokens, the soonest to expire first."""
        return tuple(sorted(self._tokens.values(), key=lambda token: (token.expires, token.id)))

    def keys(self, token_id: str) -> frozenset[str]:
        """The fingerprints of the keys that were enrolled with it, for a token that is limited in uses."""
        return self._keys.get(token_id, frozenset())

    def usable(self, token: StoredJoinToken, fingerprint: str) -> bool:
        """Whether this key may be enrolled with it."""
        keys = self.keys(token.id)
        return not token.uses or fingerprint in keys or len(keys) < token.uses

    def use(self, token: StoredJoinToken, fingerprint: str) -> None:
        """A key is enrolled with it. The database counts, so that of two processes one gets the last use.

        :raises RegistryError: it is used up, or gone.
        """
        if not token.uses or fingerprint in self.keys(token.id):
            return
        with self._database.writing() as database:
            if database.execute("SELECT 1 FROM join_token WHERE id = ?", (token.id,)).fetchone() is None:
                raise RegistryError("the join token has been revoked: make a new one")
            database.execute("INSERT OR IGNORE INTO join_token_key VALUES (?, ?)", (token.id, fingerprint))
            count = database.execute("SELECT count(*) FROM join_token_key WHERE token = ?", (token.id,)).fetchone()[0]
            if count > token.uses:
                raise RegistryError("the join token has been used up: make a new one")
        self._keys[token.id] = self.keys(token.id) | {fingerprint}

    def remove(self, token_id: str) -> bool:
        """Whether there was such a token; afterwards there is none. Of two callers, one is told True."""
        with self._database.writing() as database:
            database.execute("DELETE FROM join_token_key WHERE token = ?", (token_id,))
            removed = database.execute("DELETE FROM join_token WHERE id = ?", (token_id,)).rowcount == 1
        self._tokens.pop(token_id, None)
        self._keys.pop(token_id, None)
        return removed

    def remove_of(self, cluster: str) -> int:
        """Revokes the tokens that are for this cluster alone; says how many."""
        return sum(self.remove(token.id) for token in self.list() if token.cluster == cluster)

    def drop_expired(self, now: float) -> int:
        """Removes tokens that have expired, and says how many. Writes nothing where there is none."""
        return sum(self.remove(token.id) for token in self.list() if token.expires <= now)

    def read(self, database: sqlite3.Connection) -> _Content:
        """See `gateway.database.Store`."""
        query = "SELECT id, key, cluster, expires, created, uses, accept, labels FROM join_token"
        tokens = {row[0]: _token(row) for row in database.execute(query).fetchall()}
        keys: dict[str, frozenset[str]] = {}
        for token, fingerprint in database.execute("SELECT token, fingerprint FROM join_token_key").fetchall():
            keys[token] = keys.get(token, frozenset()) | {fingerprint}
        return _Content(tokens, keys)

    def take(self, content: _Content) -> None:
        """See `gateway.database.Store`."""
        self._tokens, self._keys = content.tokens, content.keys


def _token(row: tuple[Any, ...]) -> StoredJoinToken:
    token, key, cluster, expires, created, uses, accept, labels = row
    return StoredJoinToken(token, key, cluster, expires, created, uses, bool(accept), tuple(json.loads(labels).items()))
