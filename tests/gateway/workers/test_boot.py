"""What a worker is given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.audit.settings import AuditSettings
from gateway.config import ConfigError, ServerConfig
from gateway.replicas.settings import ReplicaSettings
from gateway.workers.boot import Boot, name_of, numbers_of, own_log


def boot(number: int, at: Path, audit: AuditSettings | None = None) -> Boot:
    config = ServerConfig(state_dir=at, workers=3, audit=audit or AuditSettings())
    return Boot(number, 3, 5, os.getpid(), config, at / "w", (7,), 8, 9, "info", "json")


def test_it_arrives_as_it_was_sent_in_a_file_that_has_no_name(tmp_path: Path) -> None:
    made = boot(1, tmp_path)
    assert Boot.from_file(made.to_file()) == made


def test_workers_have_names_addresses_and_hints(tmp_path: Path) -> None:
    workers = boot(1, tmp_path).workers
    assert [one.identity for one in workers] == ["worker-0", "worker-1", "worker-2"]
    assert workers[2].peer_address == f"unix:{tmp_path}/w/2"
    assert workers[2].hint == "kulvert-worker-2"
    assert numbers_of(map(name_of, (0, 12))) == [0, 12]


def test_each_worker_but_the_first_has_audit_logs_of_its_own(tmp_path: Path) -> None:
    given = AuditSettings(log_path=(str(tmp_path / "a.log"), str(tmp_path / "b")))
    assert boot(0, tmp_path, given).settings.audit == given
    assert boot(2, tmp_path, given).settings.audit.log_path == (str(tmp_path / "a.2.log"), str(tmp_path / "b.2"))
    assert boot(2, tmp_path).settings.audit.log_path == (str(tmp_path / "audit.2.log"),)


def test_what_is_no_regular_file_stays_everybodys() -> None:
    assert own_log("none", 1) == "none"
    assert own_log("/dev/null", 1) == "/dev/null"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"audit": AuditSettings(log_path=("-",))}, "standard output"),
        ({"replicas": ReplicaSettings(mode="standby", identity="a")}, "do not go together"),
        ({"workers": 65}, "the most"),
    ],
    ids=["stdout", "replicas", "many"],
)
def test_what_several_workers_cannot_be_combined_with_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ServerConfig(**({"workers": 2} | settings))  # type: ignore[arg-type]  # each has its own type


def test_one_worker_is_a_server_as_ever() -> None:
    assert ServerConfig(workers=1, audit=AuditSettings(log_path=("-",))).workers == 1
