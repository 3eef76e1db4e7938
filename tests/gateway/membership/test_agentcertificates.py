"""Agents' certificates: what is not kept does not count, and what a leaked token can fill is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.database import RegistryError
from gateway.membership.agentcertificates import MOST, UNUSED, IssuedCertificate
from gateway.membership.stores import Stores

NOW = 1000.0


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    made = Stores.open(tmp_path / "clusters.db")
    yield made
    made.close()


def one(serial: str, cluster: str = "edge", uid: str = "u1", issued: float = NOW) -> IssuedCertificate:
    return IssuedCertificate(serial, cluster, uid, "agent", f"key-{serial}", issued, issued + 7 * 86_400)


def test_what_was_issued_counts_until_it_expires_or_is_revoked(stores: Stores, tmp_path: Path) -> None:
    kept = stores.certificates
    kept.add(one("a"), NOW)
    kept.add(one("b"), NOW)
    assert kept.certified("edge", "u1", NOW)
    assert not kept.certified("edge", "u2", NOW)
    assert kept.has_key("edge", "u1", "key-a", NOW)
    assert kept.revoke("a", NOW + 1).revoked == NOW + 1
    assert kept.revoke("a", NOW + 2).revoked == NOW + 1
    assert not kept.has_key("edge", "u1", "key-a", NOW + 1)
    again = Stores.open(tmp_path / "clusters.db")
    assert again.certificates.of("edge") == kept.of("edge")
    again.close()
    assert not kept.certified("edge", "u1", NOW + 8 * 86_400)
    assert kept.drop_expired(NOW + 8 * 86_400) == 2
    assert kept.of("edge") == ()
    with pytest.raises(RegistryError, match="no certificate"):
        kept.revoke("a", NOW)


def test_those_of_one_cluster_id_go_without_the_others(stores: Stores) -> None:
    kept = stores.certificates
    for made in (one("a"), one("b", uid="u2"), one("c", cluster="hub")):
        kept.add(made, NOW)
    assert kept.remove_of("edge", "u1") == 1
    assert [c.serial for c in kept.of("edge")] == ["b"]
    assert kept.remove_of("edge") == 1
    assert [c.serial for c in kept.of("hub")] == ["c"]


def test_a_full_cluster_gives_up_what_nobody_has_shown_and_never_what_is_in_use(stores: Stores) -> None:
    kept = stores.certificates
    for number in range(MOST):
        kept.add(one(f"{number:x}"), NOW)
    with pytest.raises(RegistryError, match="in use: revoke some"):
        kept.add(one("new", issued=NOW + 1), NOW + 1)
    later = NOW + UNUSED + 1
    for number in range(1, MOST):
        kept.shown(f"{number:x}", later)
    kept.add(one("new", issued=later), later)
    assert kept.get("0") is None
    assert len(kept.of("edge")) == MOST
    with pytest.raises(RegistryError, match="in use"):
        kept.add(one("more", issued=later), later)
    kept.add(one("elsewhere", cluster="hub"), later)


def test_after_a_restart_everybody_gets_the_time_to_come_again(stores: Stores, tmp_path: Path) -> None:
    for number in range(MOST):
        stores.certificates.add(one(f"{number:x}"), NOW)
    again, later = Stores.open(tmp_path / "clusters.db"), NOW + 10 * UNUSED
    with pytest.raises(RegistryError, match="in use"):
        again.certificates.add(one("new", issued=later), later)
    again.certificates.add(one("new", issued=later), later + UNUSED)
    again.close()
