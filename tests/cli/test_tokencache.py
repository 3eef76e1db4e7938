"""The cache of logins: private, whole, and taken for empty rather than believed."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from cli.failures import Failed
from cli.tokencache import LOGIN, MOST, LoginKey, TokenCache, directory

KEY = LoginKey("https://gateway.test:8443", "https://issuer.test", "kulvert")
DOCUMENT = {"idToken": "the-secret"}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, said: list[str]) -> TokenCache:
    return TokenCache(tmp_path / "cache", said.append)


def only_file(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "cache").glob("*.json")
    return found


def test_what_is_kept_is_found_again_by_its_key_alone(cache: TokenCache) -> None:
    assert cache.load(KEY, LOGIN) is None
    cache.save(KEY, LOGIN, DOCUMENT)
    assert (cache.load(KEY, LOGIN) or {})["idToken"] == "the-secret"
    for other in (
        LoginKey("https://evil.test", KEY.issuer, KEY.client_id),
        LoginKey(KEY.server, "https://evil.test", KEY.client_id),
        LoginKey(KEY.server, KEY.issuer, "other"),
        LoginKey(KEY.server, KEY.issuer, KEY.client_id, "ops"),
    ):
        assert cache.load(other, LOGIN) is None
    assert cache.load(KEY, "certificate") is None


def test_directory_and_files_are_their_owners_alone(cache: TokenCache, tmp_path: Path) -> None:
    cache.save(KEY, LOGIN, DOCUMENT)
    with cache.locked(KEY, LOGIN):
        pass
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "cache").iterdir()} == {0o600}
    assert only_file(tmp_path).name.startswith("gateway.test-8443-")


def test_a_umask_makes_nothing_open(cache: TokenCache, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache.save(KEY, LOGIN, DOCUMENT)
    finally:
        os.umask(before)
    assert only_file(tmp_path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_a_file_that_is_open_to_others_is_refused(cache: TokenCache, tmp_path: Path, mode: int) -> None:
    cache.save(KEY, LOGIN, DOCUMENT)
    only_file(tmp_path).chmod(mode)
    with pytest.raises(Failed, match="open to others than its owner: `chmod 600"):
        cache.load(KEY, LOGIN)


def test_a_directory_that_is_open_to_others_is_refused(cache: TokenCache, tmp_path: Path) -> None:
    cache.save(KEY, LOGIN, DOCUMENT)
    (tmp_path / "cache").chmod(0o755)
    with pytest.raises(Failed, match="open to others than its owner: `chmod 700"):
        cache.load(KEY, LOGIN)
    with pytest.raises(Failed, match="open to others than its owner: `chmod 700"):
        cache.save(KEY, LOGIN, DOCUMENT)


def test_another_users_file_is_not_trusted(cache: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.save(KEY, LOGIN, DOCUMENT)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(Failed, match="belongs to another user"):
        cache.load(KEY, LOGIN)


def test_a_link_in_its_place_is_not_followed(cache: TokenCache, tmp_path: Path) -> None:
    cache.save(KEY, LOGIN, DOCUMENT)
    path = only_file(tmp_path)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        cache.load(KEY, LOGIN)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 100_000, b" " * (MOST + 10)])
def test_a_file_that_makes_no_sense_is_an_empty_one_with_a_word(
    cache: TokenCache, tmp_path: Path, said: list[str], text: bytes
) -> None:
    cache.save(KEY, LOGIN, DOCUMENT)
    only_file(tmp_path).write_bytes(text)
    assert cache.load(KEY, LOGIN) is None
    assert "is damaged and taken for empty" in said[0]
    assert cache.logins() == []


def test_a_file_under_another_ones_name_is_not_that_ones(cache: TokenCache, tmp_path: Path, said: list[str]) -> None:
    cache.save(KEY, LOGIN, DOCUMENT)
    other = LoginKey("https://evil.test", KEY.issuer, KEY.client_id)
    only_file(tmp_path).rename(tmp_path / "cache" / f"{other.stem}.{LOGIN}.json")
    assert cache.load(other, LOGIN) is None
    assert cache.logins() == []
    assert "the-secret" not in "".join(said)


def test_logins_are_listed_and_removed(cache: TokenCache) -> None:
    other = LoginKey(KEY.server, KEY.issuer, KEY.client_id, "ops")
    for key in (KEY, other):
        cache.save(key, LOGIN, DOCUMENT)
    assert set(cache.logins()) == {KEY, other}
    assert cache.remove(KEY, LOGIN)
    assert not cache.remove(KEY, LOGIN)
    assert cache.logins() == [other]


def test_one_at_a_time_and_others_are_told(tmp_path: Path, cache: TokenCache, said: list[str]) -> None:
    order: list[str] = []

    def second() -> None:
        with TokenCache(tmp_path / "cache", said.append).locked(KEY, LOGIN):
            order.append("second")

    thread = threading.Thread(target=second)
    with cache.locked(KEY, LOGIN):
        thread.start()
        thread.join(0.1)
        order.append("first")
        with pytest.raises(Failed, match="for too long"), cache.locked(KEY, LOGIN, patience=0.05):
            pass
    thread.join(5)
    assert order == ["first", "second"]


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert directory({}) == Path("/home/ada/.kube/cache/kulvert")
    assert directory({"KULVERT_CACHE_DIR": "/x"}) == Path("/x")


def test_a_half_written_file_is_never_seen(cache: TokenCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.save(KEY, LOGIN, DOCUMENT)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        cache.save(KEY, LOGIN, {"idToken": "another"})
    assert json.loads(only_file(tmp_path).read_bytes())["idToken"] == "the-secret"
    assert len(list((tmp_path / "cache").iterdir())) == 1
