"""`kulvert certificate`: what was issued, and taking it back while a server runs on the same directory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.lazy import Entry, LazyGroup
from gateway.issuing.store import CERTIFICATE, TOKEN, IssuedCredential, RevocationStore
from gateway.membership.registry import SqliteRegistry

NOW = time.time()
ROOT = LazyGroup(name="kulvert", entries=(Entry("certificate", "cli.certificate:certificate", "."),))


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(ROOT, ["certificate", *map(str, args)], prog_name="kulvert")


class Served:
    """A server's view of the state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.registry = SqliteRegistry(directory / "clusters.db")
        self.store = RevocationStore(self.registry.database)
        for number, kind, user in (
            ("ab12", CERTIFICATE, "ada"),
            ("t" * 32, TOKEN, "ada"),
            ("cd34", CERTIFICATE, "bob"),
        ):
            one = IssuedCredential(f"{kind}-{number}", kind, number, user, NOW, NOW + 600, NOW + 900, "login")
            self.store.record(one, recorded_parent=False, now=NOW)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "state")
    yield made
    made.registry.close()


def test_what_was_issued_is_listed(served: Served) -> None:
    lines = run("list", "--state-dir", served.directory).output.splitlines()
    assert lines[0].split() == ["KIND", "ID", "USER", "ISSUED", "EXPIRES", "STATE"]
    assert {(row.split()[1], row.split()[-1]) for row in lines[1:]} == {
        ("ab12", "good"),
        ("t" * 32, "good"),
        ("cd34", "good"),
    }
    assert len(run("list", "--user", "bob", "--state-dir", served.directory).output.splitlines()) == 2


def test_what_has_expired_is_listed_on_demand(served: Served) -> None:
    one = IssuedCredential("old", CERTIFICATE, "ef56", "ada", NOW - 99, NOW - 9, NOW + 900, "login")
    served.store.record(one, recorded_parent=False, now=NOW - 99)
    assert "ef56" not in run("list", "--state-dir", served.directory).output
    assert "ef56" in run("list", "--all", "--state-dir", served.directory).output


def test_a_running_server_hears_of_a_revocation(served: Served) -> None:
    result = run("revoke", "AB:12", "--state-dir", served.directory)
    assert result.output == "certificate ab12 of ada revoked\n"
    assert served.registry.poll()
    assert served.store.revocations().serials == {0xAB12}
    assert "revoked" in run("list", "--state-dir", served.directory).output


def test_a_token_is_revoked_by_its_id(served: Served) -> None:
    assert run("revoke", "t" * 32, "--state-dir", served.directory).exit_code == 0
    served.registry.poll()
    assert served.store.revocations().tokens == {"t" * 32}


def test_a_user_loses_everything_at_once(served: Served) -> None:
    result = run("revoke", "--user", "ada", "--state-dir", served.directory)
    assert "2 of it recorded" in result.output
    served.registry.poll()
    states = [
        line.split()[-1] for line in run("list", "--user", "ada", "--state-dir", served.directory).output.splitlines()
    ]
    assert states[1:] == ["revoked", "revoked"]
    assert served.store.revocations().users["ada"] >= NOW


def test_a_number_without_record_is_refused_from_now_on(served: Served) -> None:
    assert "there is no record of ff99" in run("revoke", "ff99", "--state-dir", served.directory).output
    served.registry.poll()
    assert served.store.revocations().serials == {0xFF99}


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (["revoke"], 2, "name either a SERIAL"),
        (["revoke", "ab", "--user", "ada"], 2, "name either a SERIAL"),
        (["revoke", "no serial"], 1, "`kulvert certificate list` shows them"),
        (["revoke", ""], 1, "`kulvert certificate list` shows them"),
    ],
)
def test_what_cannot_be_done_is_one_line(served: Served, args: list[str], code: int, line: str) -> None:
    result = run(*args, "--state-dir", served.directory)
    assert result.exit_code == code
    assert line in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_typing_error_in_the_directory_makes_no_new_state(tmp_path: Path) -> None:
    assert run("list", "--state-dir", tmp_path / "tpyo").exit_code == 1
    assert not (tmp_path / "tpyo").exists()
