"""What a server knows of its users, composed."""

from __future__ import annotations

import time
from pathlib import Path

from gateway.clusterkeys import ClusterKeys
from gateway.config import ServerConfig
from gateway.registry import SqliteRegistry
from gateway.revocationstore import TOKEN, IssuedCredential
from gateway.state import State
from gateway.wiring.authentication import Authentication


async def test_credentials_that_count_no_more_are_forgotten_in_time(tmp_path: Path) -> None:
    state, now = State(tmp_path), time.time()
    registry = SqliteRegistry(tmp_path / "kulvert.db")
    keys = ClusterKeys(registry.database)
    made = Authentication(ServerConfig(state_dir=tmp_path), state, registry.database, keys, None, now)
    old = IssuedCredential("JTI=a", TOKEN, "a", "ada", now - 9_000, now - 8_000, now - 7_000, "")
    made.revocations.record(old, recorded_parent=False, now=now)
    await made.part.looks["credentials"]()
    assert made.revocations.issued() == ()
    registry.close()
