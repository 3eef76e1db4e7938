"""All replicas have the same keys, whoever was first and whatever ended in between; a rotation reaches all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from auth.pki import CertificateAuthority
from auth.statefile import read_private, write_private
from auth.tokenkeys import KeyRing, SigningKey
from gateway.mirror.keys import ALIKE, FILES, TOKEN_KEYS, Files, KeyMirror, KeysError, SharedKeys, merged_rings
from gateway.mirror.records import RecordConflict, RecordsUnavailable
from gateway.state import ISSUER, State

NOW = 1_000_000.0


class MemoryKeys:
    """Implements `KeyStore`. `before` is called before each question; `mark` is what is there of an installation."""

    def __init__(self) -> None:
        self.shared: SharedKeys | None = None
        self.version = 1
        self.mark = ""
        self.before: Callable[[str], Awaitable[None]] | None = None

    async def _asked(self, what: str) -> None:
        await asyncio.sleep(0)
        if self.before is not None:
            await self.before(what)

    async def get(self) -> SharedKeys | None:
        await self._asked("get")
        return self.shared

    async def create(self, files: Files) -> SharedKeys:
        await self._asked("create")
        if self.shared is not None:
            raise RecordConflict
        return self._put(files)

    async def begun(self) -> str:
        await self._asked("begun")
        return self.mark

    async def replace(self, before: SharedKeys, files: Files) -> SharedKeys:
        await self._asked("replace")
        if self.shared is None or self.shared.version != before.version:
            raise RecordConflict
        return self._put({**before.files, **files})

    def _put(self, files: Files) -> SharedKeys:
        self.version += 1
        self.shared = SharedKeys(str(self.version), dict(files))
        return self.shared


class Told:
    def __init__(self, after: SharedKeys | None) -> None:
        self.after = after


def replica(store: MemoryKeys, directory: Path) -> KeyMirror:
    return KeyMirror(store, State(directory), lambda: NOW)


def files(directory: Path) -> dict[str, bytes | None]:
    return {name: read_private(directory / name) for name in FILES}


async def started(store: MemoryKeys, directory: Path) -> KeyMirror:
    mirror = replica(store, directory)
    await mirror.start()
    return mirror


def rotate(directory: Path, *, compromised: bool = False, at: float = NOW) -> None:
    """As `kulvert signing-key rotate`."""
    keys = State(directory).token_keys
    keys.change(lambda ring: ring.replaced(at) if compromised else ring.rotated(at, 3600), ISSUER, at)


def kids(directory: Path) -> list[str | None]:
    return [key.verification.kid for key in State(directory).token_keys.load(ISSUER, NOW).keys]


async def test_two_replicas_that_start_at_once_on_an_empty_hub_have_the_same_keys(tmp_path: Path) -> None:
    store = MemoryKeys()
    a, b = tmp_path / "a", tmp_path / "b"
    await asyncio.gather(started(store, a), started(store, b))
    assert store.shared is not None
    assert files(a) == files(b) == store.shared.files
    assert not list(tmp_path.glob("*/*before-hub*"))
    authority = State(a).authority(NOW).certificate_pem
    assert authority == State(b).authority(NOW).certificate_pem
    assert State(a).signer(NOW) is not None
    assert (a / "ca.pem").stat().st_mode & 0o777 == 0o600


async def test_the_keys_of_a_single_server_become_those_of_all(tmp_path: Path) -> None:
    store, single = MemoryKeys(), State(tmp_path / "a")
    before = [
        single.authority(NOW).to_pem(),
        single.agents_authority(NOW).to_pem(),
        single.token_keys.load(ISSUER, NOW).text(),
    ]
    await started(store, tmp_path / "a")
    await started(store, tmp_path / "b")
    other = State(tmp_path / "b")
    assert [other.authority(NOW).to_pem(), other.agents_authority(NOW).to_pem()] == before[:2]
    assert other.token_keys.load(ISSUER, NOW).text() == before[2]


async def test_other_files_are_kept_aside_and_the_hub_counts(tmp_path: Path) -> None:
    store, other = MemoryKeys(), State(tmp_path / "b")
    await started(store, tmp_path / "a")
    mine = other.authority(NOW).to_pem()
    await started(store, tmp_path / "b")
    assert files(tmp_path / "b") == files(tmp_path / "a")
    assert read_private(tmp_path / "b" / "ca.pem.before-hub") == mine


class Crash(Exception):
    pass


async def test_a_crash_between_any_two_steps_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question to the hub is a place to die before, and each write of a file, too."""
    for deadly in range(12):
        store, a, b = MemoryKeys(), tmp_path / f"{deadly}-a", tmp_path / f"{deadly}-b"
        steps = 0

        def step(count: int = deadly) -> None:
            nonlocal steps
            steps += 1
            if steps == count + 1:
                raise Crash

        async def before(_what: str, step: Callable[[], None] = step) -> None:
            step()

        def write(path: Path, data: bytes, step: Callable[[], None] = step) -> None:
            step()
            write_private(path, data)

        store.before = before
        with monkeypatch.context() as patched:
            patched.setattr("gateway.mirror.keys.write_private", write)
            patched.setattr("auth.tokenkeysfile.write_private", write)
            try:
                await started(store, a)
            except Crash:
                pass
        store.before = None
        await asyncio.gather(started(store, b), started(store, a))
        assert store.shared is not None
        assert files(a) == files(b) == store.shared.files
        assert not list(tmp_path.glob("*/*before-hub*"))


async def test_a_rotation_at_one_reaches_the_others(tmp_path: Path) -> None:
    store = MemoryKeys()
    a, b = await started(store, tmp_path / "a"), await started(store, tmp_path / "b")
    rotate(tmp_path / "a")
    await a.look()
    b.hear([Told(store.shared)])
    await b.look()
    assert len(kids(tmp_path / "a")) == 2
    assert files(tmp_path / "a") == files(tmp_path / "b")


async def test_replicas_that_rotate_at_the_same_time_make_one_rotation(tmp_path: Path) -> None:
    store = MemoryKeys()
    a, b = await started(store, tmp_path / "a"), await started(store, tmp_path / "b")
    rotate(tmp_path / "a")
    rotate(tmp_path / "b")
    await a.look()
    await b.look()
    assert len(kids(tmp_path / "b")) == 2
    assert files(tmp_path / "a") == files(tmp_path / "b")


async def test_a_key_in_wrong_hands_is_gone_even_if_another_replica_rotates_just_then(tmp_path: Path) -> None:
    store = MemoryKeys()
    a, b = await started(store, tmp_path / "a"), await started(store, tmp_path / "b")
    (stolen,) = kids(tmp_path / "a")
    rotate(tmp_path / "a")
    rotate(tmp_path / "b", compromised=True)
    await a.look()
    await b.look()
    a.hear([Told(store.shared)])
    await a.look()
    assert stolen not in kids(tmp_path / "a")
    assert files(tmp_path / "a") == files(tmp_path / "b")


async def test_a_rotation_while_no_server_ran_counts_if_the_hub_is_as_it_was(tmp_path: Path) -> None:
    store = MemoryKeys()
    await started(store, tmp_path / "a")
    rotate(tmp_path / "a", compromised=True)
    rotated = kids(tmp_path / "a")
    await started(store, tmp_path / "a")
    assert kids(tmp_path / "a") == rotated
    assert store.shared is not None
    assert store.shared.files[TOKEN_KEYS] == read_private(tmp_path / "a" / TOKEN_KEYS)


async def test_a_replica_that_was_away_takes_the_hubs_keys_and_keeps_nothing_aside(tmp_path: Path) -> None:
    store = MemoryKeys()
    a = await started(store, tmp_path / "a")
    await started(store, tmp_path / "b")
    rotate(tmp_path / "a", compromised=True)
    await a.look()
    await started(store, tmp_path / "b")
    assert kids(tmp_path / "b") == kids(tmp_path / "a")
    assert not list(tmp_path.glob("*/*before-hub*"))


async def test_a_rotation_during_a_write_to_the_hub_is_not_lost(tmp_path: Path) -> None:
    store = MemoryKeys()
    a = await started(store, tmp_path / "a")
    rotate(tmp_path / "a")

    async def before(_what: str) -> None:
        store.before = None
        rotate(tmp_path / "a", compromised=True)

    store.before = before
    await a.look()
    (only,) = kids(tmp_path / "a")
    await a.look()
    assert kids(tmp_path / "a") == [only]
    assert store.shared is not None
    assert store.shared.files[TOKEN_KEYS] == read_private(tmp_path / "a" / TOKEN_KEYS)


# --- the Secret is gone


async def begun(tmp_path: Path) -> tuple[MemoryKeys, KeyMirror, Files]:
    """An installation whose Secret was deleted."""
    store = MemoryKeys()
    a = await started(store, tmp_path / "a")
    assert store.shared is not None
    before, store.shared, store.mark = store.shared.files, None, "Secret ns/kulvert-mirror"
    return store, a, before


async def test_a_running_replica_makes_the_secret_again_at_once(tmp_path: Path) -> None:
    store, a, before = await begun(tmp_path)
    a.hear([Told(None)])
    await a.look()
    assert store.shared is not None
    assert store.shared.files == before
    await started(store, tmp_path / "b")
    a.hear([Told(store.shared)])
    await a.look()
    assert files(tmp_path / "a") == files(tmp_path / "b") == before


async def test_replicas_that_make_it_again_at_the_same_time_make_one(tmp_path: Path) -> None:
    store = MemoryKeys()
    both = [await started(store, tmp_path / name) for name in "ab"]
    before, store.shared = files(tmp_path / "a"), None
    for one in both:
        one.hear([Told(None)])
    await asyncio.gather(*(one.look() for one in both))
    assert (await store.get() or SharedKeys("", {})).files == before


async def test_it_is_tried_again_where_the_hub_refuses_it(tmp_path: Path) -> None:
    store, a, before = await begun(tmp_path)

    async def away(_what: str) -> None:
        raise RecordsUnavailable("the hub does not answer")

    a.hear([Told(None)])
    store.before = away
    with pytest.raises(RecordsUnavailable):
        await a.look()
    store.before = None
    await a.look()
    assert store.shared is not None
    assert store.shared.files == before


async def test_a_rotation_finds_that_it_is_gone_and_goes_there_all_the_same(tmp_path: Path) -> None:
    store, a, before = await begun(tmp_path)
    rotate(tmp_path / "a")
    await a.look()
    await a.look()
    assert store.shared is not None
    assert store.shared.files["ca.pem"] == before["ca.pem"]
    assert store.shared.files[TOKEN_KEYS] == read_private(tmp_path / "a" / TOKEN_KEYS) != before[TOKEN_KEYS]


async def test_late_news_that_it_is_gone_changes_nothing(tmp_path: Path) -> None:
    store = MemoryKeys()
    a = await started(store, tmp_path / "a")
    there = store.shared
    a.hear([Told(None)])
    await a.look()
    assert store.shared is there


@pytest.mark.parametrize("local", [False, True], ids=["empty disk", "keys of its own"])
async def test_who_never_had_the_keys_makes_no_new_ones_for_an_installation(tmp_path: Path, local: bool) -> None:
    store, _, _ = await begun(tmp_path)
    if local:
        await started(MemoryKeys(), tmp_path / "b")
        (tmp_path / "b" / ALIKE).unlink()
    with pytest.raises(KeysError, match=r"restore the Secret .* delete Secret ns/kulvert-mirror"):
        await started(store, tmp_path / "b")
    assert store.shared is None
    assert local or not (tmp_path / "b").exists()
    store.mark = ""
    await started(store, tmp_path / "b")


async def test_who_had_the_keys_makes_the_secret_again_when_it_starts(tmp_path: Path) -> None:
    store, _, before = await begun(tmp_path)
    rotate(tmp_path / "a")
    await started(store, tmp_path / "a")
    assert store.shared is not None
    assert store.shared.files["ca.pem"] == before["ca.pem"]
    assert len(kids(tmp_path / "a")) == 2


async def test_what_is_no_key_is_not_taken(tmp_path: Path) -> None:
    store = MemoryKeys()
    await started(store, tmp_path / "a")
    assert store.shared is not None
    store._put({**store.shared.files, "ca.pem": b"nonsense"})
    with pytest.raises(KeysError, match=r"ca\.pem .* is no authority"):
        await started(store, tmp_path / "b")
    assert not (tmp_path / "b" / "ca.pem").exists()


async def test_a_hub_that_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = MemoryKeys(), 0
    monkeypatch.setattr("gateway.mirror.keys.LOOK", 0.0)

    async def before(_what: str) -> None:
        nonlocal asked
        asked += 1
        if asked < 3:
            assert not (tmp_path / "a").exists()
            raise RecordsUnavailable("the hub does not answer")

    store.before = before
    mirror = await started(store, tmp_path / "a")
    assert asked > 3
    assert mirror.problem is None
    assert store.shared is not None
    assert files(tmp_path / "a") == store.shared.files


async def test_a_start_that_waits_can_be_cancelled(tmp_path: Path) -> None:
    store = MemoryKeys()

    async def before(_what: str) -> None:
        raise RecordsUnavailable("the hub does not answer")

    store.before = before
    mirror = replica(store, tmp_path / "a")
    task = asyncio.create_task(mirror.start())
    await asyncio.sleep(0.01)
    assert mirror.problem is not None
    assert "the hub does not answer" in mirror.problem
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_file_that_a_later_release_shares_stays_in_the_secret(tmp_path: Path) -> None:
    store = MemoryKeys()
    a = await started(store, tmp_path / "a")
    assert store.shared is not None
    store._put({**store.shared.files, "later.pem": b"x"})
    a.hear([Told(store.shared)])
    rotate(tmp_path / "a")
    await a.look()
    assert store.shared.files["later.pem"] == b"x"
    assert not (tmp_path / "a" / "later.pem").exists()


async def test_a_missing_file_is_added_for_all(tmp_path: Path) -> None:
    store = MemoryKeys()
    made = CertificateAuthority.create("kulvert", NOW).to_pem()
    store._put({"ca.pem": made})
    await asyncio.gather(started(store, tmp_path / "a"), started(store, tmp_path / "b"))
    assert store.shared is not None
    assert set(store.shared.files) == set(FILES)
    assert store.shared.files["ca.pem"] == made
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_no_key_is_in_a_repr() -> None:
    assert b"secret".decode() not in repr(SharedKeys("1", {"ca.pem": b"secret"}))


def test_a_key_that_signs_already_is_kept_by_a_merge() -> None:
    base = KeyRing(ISSUER, (SigningKey.new(1.0, 1.0),))
    ours, theirs = base.rotated(10.0, 0.0), base.rotated(10.0, 3600.0)
    assert len(merged_rings(base, ours, theirs, 20.0).keys) == 3
    assert merged_rings(base, theirs, ours, 20.0) == ours


async def test_run_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    store = MemoryKeys()
    a = await started(store, tmp_path / "a")
    task = asyncio.create_task(a.run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "a" / ALIKE).exists()
