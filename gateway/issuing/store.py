"""Which certificates and tokens Kulvert has issued, and what was taken back: tables of the server's SQLite file.

Issuing and revoking meet in transactions of that one file, so that nobody gets a fresh credential for one that was
taken back a moment ago, in whichever process. What is renewed from a credential goes when that is revoked.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from auth.revocations import Revocations
from gateway.database import Database, RegistryError

_log = logging.getLogger(__name__)
CERTIFICATE: Final = "certificate"
TOKEN: Final = "token"  # noqa: S105 -- a kind of credential
MOST: Final = 100
"""Credentials of one user's that are good at once. Each costs a write that everybody waits for."""
SETTLING: Final = 60.0
"""Seconds after a revocation in which somebody whose credential may be meant by it gets no new one: until then every
process has heard of it, and has forgotten whom it knew.
"""
_SLACK: Final = 120.0
_SERIAL: Final = re.compile(r"(?:0x)?(?:[0-9a-f]{1,42}|[0-9a-f]{1,2}(?::[0-9a-f]{2}){1,20})")
_GOOD: Final = "SELECT count(*) FROM issued_credential WHERE user = ? AND expires > ?"
_FAMILY: Final = """
    WITH RECURSIVE family (id) AS (
        SELECT id FROM issued_credential WHERE value IN (?, ?)
        UNION SELECT child.id FROM issued_credential AS child JOIN family ON child.parent = family.id
    ) SELECT kind, value, user, expires FROM issued_credential WHERE id IN (SELECT id FROM family)
"""


class CredentialRefused(RegistryError):
    """No credential is issued for this one: it was taken back."""


class TryLater(RegistryError):
    """No credential is issued just now; the text says why."""


@dataclass(frozen=True, slots=True)
class IssuedCredential:
    """What Kulvert has signed. `id` is what audit records call it, `value` the serial number in hex, or the token's id.

    `renewable_until` bounds what is issued to who shows this one; `parent` is the id of the credential that was shown
    for it. Times are epoch seconds.
    """

    id: str
    kind: str
    value: str
    user: str
    issued: float
    expires: float
    renewable_until: float
    parent: str


class RevocationStore:
    """What was taken back is in memory (see `gateway.database.Store`), since each authentication asks for it; what was
    issued is read when somebody wants to know.
    """

    name = "credentials"
    migrations: tuple[str, ...] = (
        """
        CREATE TABLE issued_credential (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, value TEXT NOT NULL, user TEXT NOT NULL, issued REAL NOT NULL,
            expires REAL NOT NULL, renewable_until REAL NOT NULL, parent TEXT NOT NULL
        ) STRICT;
        CREATE INDEX issued_to ON issued_credential (user);
        CREATE TABLE revoked_credential (
            kind TEXT NOT NULL, value TEXT NOT NULL, at REAL NOT NULL, until REAL, PRIMARY KEY (kind, value)
        ) STRICT;
        CREATE TABLE revoked_user (user TEXT PRIMARY KEY, before REAL NOT NULL) STRICT;
        """,
    )

    def __init__(self, database: Database) -> None:
        """Opens its tables. :raises RegistryError: they cannot be used."""
        self._database = database
        self._told: list[Callable[[], None]] = []
        self._revocations = Revocations()
        database.open(self)

    def subscribe(self, told: Callable[[], None]) -> None:
        """Calls back when there are other revocations."""
        self._told.append(told)

    def revocations(self) -> Revocations:
        """What was taken back, from memory (`auth.revocations.CurrentRevocations`)."""
        return self._revocations

    def issued(self) -> tuple[IssuedCredential, ...]:
        """What was issued, the newest first, until its last renewal has ended. :raises RegistryError: no answer now."""
        return self._select("TRUE", "")

    def find(self, credential_id: str) -> IssuedCredential | None:
        """The record of a credential, of whichever process. :raises RegistryError: no answer now."""
        found = self._select("id = ?", credential_id)
        return found[0] if found else None

    def is_revoked(self, one: IssuedCredential) -> bool:
        """Whether a recorded credential was taken back, by itself or with all of its user's."""
        known = self._revocations
        if one.kind == CERTIFICATE:
            return known.certificate(int(one.value, 16), one.user, one.issued)
        return known.token(one.value, one.user, one.issued)

    def record(self, made: IssuedCredential, *, recorded_parent: bool, now: float) -> None:
        """Writes down what was just signed, before it is handed out. `recorded_parent`: whether the credential that
        was shown can be in the list.

        :raises CredentialRefused: the one that was shown was taken back meanwhile.
        :raises TryLater: the user has too many, or something was revoked a moment ago.
        :raises RegistryError: it could not be written; then it must not be handed out.
        """
        row = (made.id, made.kind, made.value, made.user, made.issued, made.expires, made.renewable_until, made.parent)
        with self._database.writing("there is a credential of this number already") as database:
            _check_parent(database, made, recorded_parent, now)
            _check_number(database, made.user, now)
            database.execute("INSERT INTO issued_credential VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def revoke(self, value: str, now: float) -> tuple[tuple[str, str, str], ...]:
        """Takes a certificate (by its serial number, in hex) or a token (by its id) back, and all that was renewed from
        it: kind, number and user of each. Empty where none of that number was recorded: it is refused all the same.
        """
        serial = serial_of(value)
        with self._database.writing() as database:
            rows = database.execute(_FAMILY, (value, serial)).fetchall()
            entries = [(kind, number, now, expires + _SLACK) for kind, number, _, expires in rows]
            if not rows:
                both = ((CERTIFICATE, serial), (TOKEN, value))
                entries = [(kind, number, now, None) for kind, number in both if number is not None]
            database.executemany("INSERT OR REPLACE INTO revoked_credential VALUES (?, ?, ?, ?)", entries)
        self._reload()
        return tuple((kind, number, user) for kind, number, user, _ in rows)

    def revoke_user(self, user: str, now: float) -> int:
        """Takes back everything that was issued to a user up to now; how much of it is recorded and still good."""
        with self._database.writing() as database:
            database.execute(
                "INSERT INTO revoked_user VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET before = max(before, excluded.before)",
                (user, now),
            )
            count = database.execute(_GOOD, (user, now)).fetchone()[0]
        self._reload()
        return int(count)

    def drop_expired(self, now: float) -> None:
        """Forgets what no longer counts by itself; for now and then. A record stays until nothing that was renewed from
        its credential can be good, because revoking the one means the others.
        """
        with self._database.writing() as database:
            database.execute(
                "DELETE FROM issued_credential WHERE max(expires, renewable_until) + ? <= ?", (_SLACK, now)
            )
            database.execute("DELETE FROM revoked_credential WHERE until <= ?", (now,))
        self._reload()

    # --- gateway.database.Store

    def read(self, database: sqlite3.Connection) -> Revocations:
        """See `gateway.database.Store`."""
        revoked = database.execute("SELECT kind, value FROM revoked_credential").fetchall()
        users = database.execute("SELECT user, before FROM revoked_user").fetchall()
        serials = frozenset(int(value, 16) for kind, value in revoked if kind == CERTIFICATE)
        tokens = frozenset(value for kind, value in revoked if kind == TOKEN)
        return Revocations(serials, tokens, dict(users))

    def take(self, content: Revocations) -> None:
        """See `gateway.database.Store`."""
        before, self._revocations = self._revocations, content
        if before != content:
            for told in self._told:
                told()

    def _reload(self) -> None:
        with self._database.writing() as database:
            content = self.read(database)
        self.take(content)

    def _select(self, condition: str, value: str) -> tuple[IssuedCredential, ...]:
        # A transaction that writes nothing costs no fsync.
        query = f"SELECT * FROM issued_credential WHERE {condition} ORDER BY issued DESC, id"  # noqa: S608 -- our own text
        with self._database.writing() as database:
            rows = database.execute(query, (value,) if value else ()).fetchall()
        return tuple(IssuedCredential(*row) for row in rows)


def serial_of(text: str) -> str | None:
    """A serial number as the list has it, in hex without leading zeros, out of any way to write it (AB:CD, 0xabcd);
    None where it can be none.
    """
    lowered = text.lower()
    if not _SERIAL.fullmatch(lowered):
        return None
    return f"{int(lowered.replace(':', ''), 16):x}"


def _check_parent(database: sqlite3.Connection, made: IssuedCredential, recorded: bool, now: float) -> None:
    """Whoever asks was authenticated from memory, which may be older than the file."""
    recent = database.execute("SELECT before FROM revoked_user WHERE user = ?", (made.user,)).fetchone()
    if recent is not None and recent[0] > now - SETTLING:
        raise TryLater("your credentials were revoked a moment ago")
    if not recorded:
        return
    row = database.execute("SELECT kind, value FROM issued_credential WHERE id = ?", (made.parent,)).fetchone()
    if row is None:  # it has no record, so no revocation can be tied to it: those of the last minute may mean it
        newest = database.execute("SELECT max(at) FROM revoked_credential").fetchone()[0]
        if newest is not None and newest > now - SETTLING:
            raise TryLater("credentials were revoked a moment ago, and yours has no record")
    elif database.execute("SELECT 1 FROM revoked_credential WHERE kind = ? AND value = ?", row).fetchone():
        raise CredentialRefused("the credential that you show has been revoked")


def _check_number(database: sqlite3.Connection, user: str, now: float) -> None:
    if database.execute(_GOOD, (user, now)).fetchone()[0] >= MOST:
        raise TryLater(f"you have {MOST} credentials of Kulvert's that are still good")
