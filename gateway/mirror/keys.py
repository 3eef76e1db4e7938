"""The keys that all replicas share, in one Secret of the hub: the authorities, and the keys that sign tokens.

    no Secret ──► it is made of what is here, and of new ones for what is not; whoever makes it first has decided
    a Secret  ──► it counts, and the files are written from it; what was here and differs is kept as NAME.before-hub
    later     ──► a change of the Secret goes into the files; a rotation here (a command's, the server's own) goes there
    it is gone ─► whoever runs makes it again of what it has; new keys are made for a new installation alone

Nothing is made in a file before the Secret has it, so that a crash between any two steps costs nothing. A digest of
what was last alike tells a rotation that happened here while no server ran from a file that is simply old.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

import orjson

from auth.agentpki import AUTHORITY
from auth.pki import CertificateAuthority
from auth.statefile import StateFileError, create_private, read_private, write_private
from auth.tokenkeys import KeyRing, KeyRingError, SigningKey, read_ring
from gateway.mirror.records import RecordConflict, RecordsUnavailable
from gateway.state import ISSUER, State

_log = logging.getLogger(__name__)
TOKEN_KEYS: Final = "token-keys.json"  # noqa: S105 -- a file's name
REPLICAS_CA: Final = "replicas-ca.pem"
REPLICAS: Final = "kulvert-replicas"
"""The name of the authority by which replicas know each other."""
AUTHORITIES: Final = {"ca.pem": "kulvert", "agents-ca.pem": AUTHORITY, REPLICAS_CA: REPLICAS}
FILES: Final = (*AUTHORITIES, TOKEN_KEYS)
ALIKE: Final = "keys-in-hub.json"
"""A file with digests of what was last the same here and there."""
LOOK: Final = 1.0
Files = Mapping[str, bytes]


class KeysError(Exception):
    """The shared keys cannot be used; the text says what to do."""


@dataclass(frozen=True, slots=True)
class SharedKeys:
    """The Secret. `version` is its resourceVersion."""

    version: str
    files: Files = field(repr=False)


class KeyStore(Protocol):
    """Where they are kept. All methods raise RecordsUnavailable."""

    async def get(self) -> SharedKeys | None: ...
    async def create(self, files: Files) -> SharedKeys:
        """Raises RecordConflict."""
        ...

    async def begun(self) -> str:
        """What at the hub shows that replicas have had keys already, or an empty text."""
        ...

    async def replace(self, before: SharedKeys, files: Files) -> SharedKeys:
        """Raises RecordConflict."""
        ...


class Change(Protocol):
    """`gateway.hub.informer.Delta`."""

    @property
    def after(self) -> SharedKeys | None: ...


class KeyMirror:
    """`start` first, before anything reads or makes a key; then `run`. `hear` is for an informer of that Secret."""

    def __init__(self, store: KeyStore, state: State, wall: Callable[[], float]) -> None:
        self._store = store
        self._state = state
        self._wall = wall
        self._shared: SharedKeys | None = None
        self._heard: SharedKeys | None = None
        self._gone = False
        self._wanted = asyncio.Event()
        self.problem: str | None = "the shared keys were not read yet"

    async def start(self) -> None:
        """The files are those of the Secret. Waits while the hub is away: without its keys nobody may serve. Raises
        KeysError, StateFileError.
        """
        while self.problem is not None:
            try:
                self._take(await self._agreed())
                self.problem = None
            except RecordConflict:
                continue
            except RecordsUnavailable as error:
                await self._away(f"the installation's keys cannot be read at the hub: {error}")

    async def _away(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning(problem)
        self.problem = problem
        await asyncio.sleep(LOOK)

    async def _agreed(self) -> SharedKeys:
        """What the Secret holds, and all of it. Raises KeysError, RecordConflict, RecordsUnavailable."""
        found = await self._store.get()
        if found is None:
            found = await self._made()
        elif missing := [name for name in FILES if name not in found.files]:
            _log.warning("the hub's keys lack some, which are added", extra={"files": missing})
            found = await self._store.replace(found, self._offered(found.files))
        return await self._with_ours(found)

    async def _made(self) -> SharedKeys:
        """There is no Secret: it is made of what is here. New keys, which other replicas would take over and no agent
        knows, are for an installation that has not begun. Raises KeysError, RecordConflict, RecordsUnavailable.
        """
        offered = self._offered({})
        if not self._had() and (begun := await self._store.begun()):
            raise KeysError(
                f"the Secret with the shared keys is gone, but {begun} is there, and this replica has never had its"
                " keys: restore the Secret from a backup, or start a replica that has them on its disk; to begin a new"
                f" installation instead, delete {begun}"
            )
        return await self._store.create(offered)

    def _had(self) -> bool:
        """Whether all that is here was once the same as in the Secret; token keys may have been rotated since."""
        alike, ours = self._alike(), {name: self._local(name) for name in FILES}
        return all(
            content is not None and (alike.get(name) == _digest(content) or (name == TOKEN_KEYS and name in alike))
            for name, content in ours.items()
        )

    def _offered(self, there: Files) -> Files:
        """What is there, what is here, and new ones."""
        now, made = self._wall(), dict(there)
        for name in FILES:
            if name not in made:
                made[name] = self._local(name) or _new(name, now)
        return made

    async def _with_ours(self, found: SharedKeys) -> SharedKeys:
        """With a rotation that happened here since both were last alike. Raises RecordConflict, RecordsUnavailable."""
        ours, alike = self._local(TOKEN_KEYS), self._alike()
        there = found.files[TOKEN_KEYS]
        if ours is None or ours == there or alike.get(TOKEN_KEYS) != _digest(there):
            return found
        return await self._store.replace(found, {**found.files, TOKEN_KEYS: ours})

    # --- while it runs

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            try:
                await self.look()
                self.problem = None
            except (RecordsUnavailable, KeysError, StateFileError, OSError) as error:
                if self.problem != str(error):
                    _log.error("the shared keys may be old here: %s", error)
                self.problem = str(error)

    def hear(self, changes: Sequence[Change]) -> None:
        """News of the Secret. That it is gone changes nothing here: `look` makes it again."""
        for change in changes:
            self._heard, self._gone = change.after, change.after is None
        self._wanted.set()

    async def look(self) -> None:
        """Takes over what has changed there, then brings what has changed here. Raises as `start`."""
        heard, self._heard = self._heard, None
        if heard is not None and (self._shared is None or int(heard.version) > int(self._shared.version)):
            await self._merge(heard)
        if self._gone:
            await self._restored()
        shared, ours = self._shared, self._local(TOKEN_KEYS)
        if shared is None or ours is None or ours == shared.files[TOKEN_KEYS]:
            return
        try:
            changed = {**shared.files, TOKEN_KEYS: _checked(TOKEN_KEYS, ours)}
            self._take(await self._store.replace(shared, changed), ours)
        except RecordConflict:
            await self._restore()

    async def _restored(self) -> None:
        self._gone = False  # what is heard meanwhile is later
        try:
            await self._restore()
        except BaseException:
            self._gone = True
            raise

    async def _restore(self) -> None:
        """The Secret as it is; where it is gone, it is made again before a replica without keys can start. Raises as
        `start`.
        """
        found, shared = await self._store.get(), self._shared
        if found is None and shared is not None:
            _log.error("the Secret with the shared keys is gone from the hub: this replica makes it again")
            try:
                found = await self._store.create(shared.files)
            except RecordConflict:  # another replica has
                found = await self._store.get()
        if found is None:
            raise KeysError("the Secret with the shared keys is gone again: see who deletes it")
        await self._merge(found)

    async def _merge(self, found: SharedKeys) -> None:
        """Another replica's rotation and ours make one. Raises as `start`."""
        base, ours, there = self._shared, self._local(TOKEN_KEYS), found.files.get(TOKEN_KEYS, b"")
        if base is not None and ours not in (None, base.files[TOKEN_KEYS], there):
            before, mine = _ring(base.files[TOKEN_KEYS]), _ring(ours or b"")
            rotated = there != base.files[TOKEN_KEYS]
            merged = (merged_rings(before, mine, _ring(there), self._wall()) if rotated else mine).text()
            if merged != there:
                try:
                    found = await self._store.replace(found, {**found.files, TOKEN_KEYS: merged})
                except RecordConflict:
                    self._wanted.set()
                    return
        self._take(found, ours)

    # --- files

    def _take(self, shared: SharedKeys, ours: bytes | None = None) -> None:
        """The files are those of the Secret, unless the token keys are not `ours` any more: then another process has
        just rotated them, which the next look takes there. Raises KeysError, StateFileError.
        """
        alike = self._alike()
        for name in FILES:
            if name in shared.files:
                self._place(name, _checked(name, shared.files[name]), alike.get(name), ours)
        digests = {name: _digest(shared.files[name]) for name in FILES if name in shared.files}
        if digests != alike:
            write_private(self._state.directory / ALIKE, orjson.dumps(digests))
        self._shared = shared

    def _place(self, name: str, wanted: bytes, alike: str | None, seen: bytes | None) -> None:
        path, ours = self._state.directory / name, self._local(name)
        if ours == wanted:
            return
        if ours is not None and ours != seen and _digest(ours) != alike:
            _keep_aside(path, ours)
        if ours is not None:
            _log.warning("a key file is the hub's from now on%s", _advice(name), extra={"file": name})
        if name == TOKEN_KEYS:
            ring = _ring(wanted)

            def change(old: KeyRing) -> KeyRing:
                return ring if seen is None or old.text() == seen else old

            self._state.token_keys.change(change, ISSUER, self._wall())
        else:
            write_private(path, wanted)

    def _local(self, name: str) -> bytes | None:
        path = self._state.directory / name
        keys = self._state.token_keys
        if name == TOKEN_KEYS and not path.exists() and keys.single.exists():
            keys.load(ISSUER, self._wall())  # of an older release: becomes the file that is meant
        return read_private(path)

    def _alike(self) -> dict[str, str]:
        text = read_private(self._state.directory / ALIKE)
        try:
            return dict(orjson.loads(text)) if text else {}
        except (ValueError, TypeError):
            return {}


def merged_rings(base: KeyRing, ours: KeyRing, theirs: KeyRing, now: float) -> KeyRing:
    """A key that either side has taken away is gone: it may be in wrong hands. A key that only we have made counts if
    it signs already, or if it is in the place of one that we took away; otherwise theirs is the one rotation.
    """
    known, mine, there = ({key.verification.kid for key in ring.keys} for ring in (base, ours, theirs))
    removed = known - mine
    kept = [key for key in theirs.keys if key.verification.kid not in removed]
    new = [key for key in ours.keys if key.verification.kid not in known | there]
    kept += [key for key in new if removed or key.active <= now]
    issuer = ours.issuer if ours.issuer != base.issuer else theirs.issuer
    return replace(theirs, issuer=issuer, keys=tuple(sorted(kept or ours.keys, key=lambda key: key.active)))


def _new(name: str, now: float) -> bytes:
    if name == TOKEN_KEYS:
        return KeyRing(ISSUER, (SigningKey.new(now, now),)).text()
    return CertificateAuthority.create(AUTHORITIES[name], now).to_pem()


def _checked(name: str, content: bytes) -> bytes:
    """:raises KeysError: it is no such key."""
    if name == TOKEN_KEYS:
        _ring(content)
        return content
    try:
        CertificateAuthority.read(content)
    except ValueError:
        raise KeysError(f"{name} of the Secret with the shared keys is no authority: put the right one there") from None
    return content


def _ring(content: bytes) -> KeyRing:
    try:
        return read_ring(content)
    except KeyRingError as error:
        raise KeysError(f"{TOKEN_KEYS}, shared by all replicas, {error}: put the right ones there") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _keep_aside(path: Path, content: bytes) -> None:
    number, aside = 1, path.with_name(f"{path.name}.before-hub")
    while not create_private(aside, content):
        if read_private(aside) == content:
            return
        number, aside = number + 1, path.with_name(f"{path.name}.before-hub.{number}")


def _advice(name: str) -> str:
    return "" if name == TOKEN_KEYS else ": restart this replica, if it runs already"
