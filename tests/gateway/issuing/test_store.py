"""What was issued and what was taken back: both survive, and no fresh credential comes of a revoked one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.database import Database, RegistryError
from gateway.issuing.store import (
    CERTIFICATE,
    MOST,
    SETTLING,
    TOKEN,
    CredentialRefused,
    IssuedCredential,
    RevocationStore,
    TryLater,
    serial_of,
)

NOW = 1_800_000_000.0
LOGIN = "JTI=of-the-issuer"


def made(value: str, parent: str = LOGIN, user: str = "jane", kind: str = CERTIFICATE) -> IssuedCredential:
    name = f"X509SHA256={value}" if kind == CERTIFICATE else f"JTI={value}"
    return IssuedCredential(name, kind, value, user, NOW, NOW + 600, NOW + 6000, parent)


class Process:
    """A store of its own on the file."""

    def __init__(self, path: Path) -> None:
        self.told: list[bool] = []
        self.database = Database(path)
        self.store = RevocationStore(self.database)
        self.store.subscribe(lambda: self.told.append(True))

    def record(self, one: IssuedCredential, now: float = NOW) -> None:
        self.store.record(one, recorded_parent=one.parent != LOGIN, now=now)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kulvert.db"


@pytest.fixture
def server(path: Path) -> Iterator[Process]:
    process = Process(path)
    yield process
    process.database.close()


@pytest.fixture
def command(path: Path) -> Iterator[Process]:
    process = Process(path)
    yield process
    process.database.close()


def test_what_was_issued_is_found_and_survives_a_restart(server: Process, path: Path) -> None:
    one = made("ab")
    server.record(one)
    again = Process(path)
    for process in (server, again):
        assert process.store.find(one.id) == one
        assert process.store.issued() == (one,)
        assert not process.store.is_revoked(one)
    again.database.close()


def test_a_revocation_reaches_the_other_process_and_tells_it(server: Process, command: Process) -> None:
    server.record(made("ab"))
    assert not server.told
    command.database.poll()
    assert command.store.revoke("00:AB", NOW + 1) == ((CERTIFICATE, "ab", "jane"),)
    assert not server.store.revocations().serials
    assert server.database.poll()
    assert server.store.revocations().serials == {0xAB}
    assert server.told == [True]
    assert server.store.is_revoked(made("ab"))


def test_what_was_renewed_from_a_revoked_one_goes_too(server: Process) -> None:
    server.record(made("a1"))
    server.record(made("a2", parent="X509SHA256=a1"))
    server.record(made("t3", parent="X509SHA256=a2", kind=TOKEN))
    server.record(made("b1"))
    gone = server.store.revoke("a1", NOW)
    assert {value for _, value, _ in gone} == {"a1", "a2", "t3"}
    assert server.store.revocations().serials == {0xA1, 0xA2}
    assert server.store.revocations().tokens == {"t3"}


def test_what_has_no_record_is_refused_all_the_same(server: Process) -> None:
    assert server.store.revoke("00FF", NOW) == ()
    assert server.store.revocations().serials == {0xFF}
    assert server.store.revocations().tokens == {"00FF"}
    assert server.store.revoke("no-hex", NOW) == ()
    assert server.store.revocations().tokens == {"00FF", "no-hex"}


def test_of_a_user_everything_goes_and_the_later_moment_stays(server: Process) -> None:
    server.record(made("ab"))
    assert server.store.revoke_user("jane", NOW + 5) == 1
    assert server.store.revoke_user("jane", NOW + 1) == 1
    assert server.store.revocations().users == {"jane": NOW + 5}
    assert server.store.is_revoked(made("ab"))
    assert not server.store.is_revoked(made("ac", user="june"))


def test_a_revoked_credential_gets_no_successor_though_this_process_has_not_heard(
    server: Process, command: Process
) -> None:
    server.record(made("a1"))
    command.database.poll()
    command.store.revoke("a1", NOW + 1)
    assert not server.store.revocations().serials
    with pytest.raises(CredentialRefused, match="revoked"):
        server.record(made("a2", parent="X509SHA256=a1"), NOW + 1)


def test_after_a_users_revocation_nothing_is_issued_until_everybody_has_heard(
    server: Process, command: Process
) -> None:
    command.store.revoke_user("jane", NOW)
    for parent in (LOGIN, "X509SHA256=a1"):
        with pytest.raises(TryLater, match="a moment ago"):
            server.record(made("a2", parent=parent), NOW + SETTLING - 1)
    server.record(made("a2"), NOW + SETTLING)
    server.record(made("a3", user="june"), NOW + 1)


def test_a_parent_without_record_waits_after_any_revocation_and_a_login_does_not(
    server: Process, command: Process
) -> None:
    command.store.revoke("ff", NOW)
    with pytest.raises(TryLater, match="no record"):
        server.record(made("a2", parent="X509SHA256=ff"), NOW + SETTLING - 1)
    server.record(made("a3"), NOW + 1)
    server.record(made("a2", parent="X509SHA256=ff"), NOW + SETTLING)


def test_one_user_cannot_fill_the_list(server: Process) -> None:
    for number in range(MOST):
        server.record(made(f"{number:x}"))
    with pytest.raises(TryLater, match="still good"):
        server.record(made("fff"))
    server.record(made("ffe", user="june"))
    server.record(replace(made("ffd"), expires=NOW + 2000), NOW + 601)


def test_a_number_is_issued_once(server: Process) -> None:
    server.record(made("ab"))
    with pytest.raises(RegistryError, match="already"):
        server.record(made("ab", user="june"))
    assert server.store.issued() == (made("ab"),)


def test_a_record_stays_as_long_as_anything_renewed_from_it(server: Process) -> None:
    server.record(made("a1"))
    server.record(replace(made("a2", parent="X509SHA256=a1"), expires=NOW + 6000))
    server.store.drop_expired(NOW + 6000)
    assert {value for _, value, _ in server.store.revoke("a1", NOW + 5000)} == {"a1", "a2"}
    server.store.revoke("ff", NOW)
    server.store.drop_expired(NOW + 6000 + 119)
    assert server.store.issued()
    assert server.store.revocations().serials == {0xA2, 0xFF}
    server.store.drop_expired(NOW + 6000 + 120)
    assert not server.store.issued()
    assert server.store.revocations().serials == {0xFF}


@pytest.mark.parametrize(
    ("text", "serial"),
    [
        ("ab", "ab"), ("AB", "ab"), ("00ab", "ab"), ("0xAB", "ab"), ("00:AB:cd", "abcd"), ("0", "0"),
        ("f" * 40, "f" * 40),
        ("", None), ("xyz", None), ("ab:", None), ("a b", None), ("f" * 43, None), ("-1", None),
    ],
)  # fmt: skip
def test_serial_numbers_are_read_in_every_way_people_write_them(text: str, serial: str | None) -> None:
    assert serial_of(text) == serial
