"""What administrators do with clusters, and what they are told where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from auth.jointoken import StoredJoinToken
from gateway.database import RegistryError
from gateway.membership import changes as membership
from gateway.membership.agentcertificates import IssuedCertificate
from gateway.membership.enrolments import Choice, Enrolment
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores

NOW = 1000.0
ASKED = Enrolment("edge", "u1", "key", "agent", "", "tok", NOW, NOW)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    made = Stores.open(tmp_path / "clusters.db")
    yield made
    made.close()


def test_the_one_cluster_that_asks_is_accepted_and_of_several_one_is_chosen(stores: Stores) -> None:
    stores.registry.add(Cluster("edge"))
    with pytest.raises(RegistryError, match="nobody asks"):
        membership.accept(stores, "edge", None, NOW)
    stores.enrolments.told(ASKED)
    stores.enrolments.told(replace(ASKED, cluster_id="u2", fingerprint="other"))
    with pytest.raises(RegistryError, match=r"choose one by --id \(u1, u2\)"):
        membership.accept(stores, "edge", None, NOW)
    cluster, has_name = membership.accept(stores, "edge", "u2", NOW)
    assert (cluster.uid, cluster.accepted, has_name) == ("u2", NOW, True)
    assert [one.choice for one in stores.enrolments.of("edge")] == [Choice.ACCEPTED, Choice.NONE][::-1]


@pytest.mark.parametrize("uid", [None, "u1"])
def test_of_keys_that_claim_one_cluster_with_tokens_of_many_hands_one_is_chosen(
    stores: Stores, uid: str | None
) -> None:
    """A cluster's id is known to many: whoever holds such a token could come in beside the one that was meant."""
    stores.registry.add(Cluster("edge", uid))
    stores.tokens.add(StoredJoinToken("tok", b"k", "", NOW + 1, labels=(("env", "edge"),)))
    stores.tokens.add(StoredJoinToken("own", b"k", "edge", NOW + 1))
    for key in ("aa11", "aa22", "bb33"):
        stores.enrolments.told(replace(ASKED, fingerprint=key, agent=f"agent-{key}"))
    for key in ("", "aa", "cc"):
        with pytest.raises(RegistryError, match="choose one by --key"):
            membership.accept(stores, "edge", "u1", NOW, key)
    assert stores.registry.list()[0].uid == uid
    membership.accept(stores, "edge", "u1", NOW, None)
    assert {one.choice for one in stores.enrolments.list()} == {Choice.NONE}
    membership.accept(stores, "edge", "u1", NOW, "aa1")
    membership.deny(stores, "edge", "u1")
    stores.enrolments.told(replace(ASKED, fingerprint="cc44"))
    stores.enrolments.told(replace(ASKED, fingerprint="dd55", token="own"))
    membership.accept(stores, "edge", None, NOW)
    accepted = [one.fingerprint for one in stores.enrolments.list() if one.choice is Choice.ACCEPTED]
    assert accepted == ["cc44", "dd55"]
    stores.enrolments.told(replace(ASKED, fingerprint="ee66"))
    membership.accept(stores, "edge", None, NOW)
    assert stores.enrolments.of("edge")[-1].choice is Choice.ACCEPTED


@pytest.mark.parametrize(("keys", "choice"), [(("aa",), Choice.ACCEPTED), (("aa", "bb"), Choice.NONE)])
def test_a_switch_takes_in_no_key_that_nobody_has_named(stores: Stores, keys: tuple[str, ...], choice: Choice) -> None:
    stores.registry.add(Cluster("edge", "u1"))
    for key in keys:
        stores.enrolments.told(replace(ASKED, cluster_id="u2", fingerprint=key))
    assert membership.switch(stores, "edge", "u2", NOW).uid == "u2"
    assert {one.choice for one in stores.enrolments.list()} == {choice}


def test_an_accepted_second_cluster_waits_and_an_unknown_one_is_no_second(stores: Stores) -> None:
    stores.registry.add(Cluster("edge", "u1"))
    with pytest.raises(RegistryError, match="kulvert cluster switch edge --to u2"):
        membership.accept(stores, "edge", "u2", NOW)
    stores.enrolments.told(replace(ASKED, cluster_id="u2"))
    cluster, has_name = membership.accept(stores, "edge", None, NOW)
    assert (cluster.uid, has_name) == ("u1", False)


def test_a_name_that_a_fleet_token_brought_gets_its_labels(stores: Stores) -> None:
    with pytest.raises(RegistryError, match="kulvert cluster add"):
        membership.accept(stores, "edge", "u1", NOW)
    stores.tokens.add(StoredJoinToken("tok", b"k", "", NOW + 1, labels=(("env", "edge"),)))
    stores.enrolments.told(ASKED)
    cluster, _ = membership.accept(stores, "edge", None, NOW)
    assert (cluster.uid, cluster.labels) == ("u1", (("env", "edge"),))


def test_the_denied_wait_no_more_and_may_be_accepted_by_nobody_by_chance(stores: Stores) -> None:
    stores.registry.add(Cluster("edge"))
    with pytest.raises(RegistryError, match="nobody asks"):
        membership.deny(stores, "edge", None)
    stores.enrolments.told(ASKED)
    assert membership.deny(stores, "edge", "u1") == 1
    with pytest.raises(RegistryError, match="nobody asks"):
        membership.accept(stores, "edge", None, NOW)
    membership.accept(stores, "edge", "u1", NOW)  # somebody has thought better of it
    assert stores.enrolments.of("edge")[0].choice is Choice.ACCEPTED


def test_a_switch_revokes_the_first_ones_certificates_alone(stores: Stores) -> None:
    stores.registry.add(Cluster("edge", "u1"))
    for serial, uid in (("a", "u1"), ("b", "u2")):
        stores.certificates.add(IssuedCertificate(serial, "edge", uid, "", serial, NOW, NOW + 60), NOW)
    assert membership.switch(stores, "edge", "u2", NOW).uid == "u2"
    assert [one.serial for one in stores.certificates.of("edge")] == ["b"]
    for wrong in ("u2", ""):
        with pytest.raises(RegistryError, match="already"):
            membership.switch(stores, "edge", wrong, NOW)


def test_nothing_is_done_to_a_cluster_that_goes_or_is_not_there(stores: Stores) -> None:
    with pytest.raises(RegistryError, match="no cluster 'nil'"):
        membership.remove(stores, "nil", "", False, NOW)
    with pytest.raises(RegistryError, match="no cluster 'nil'"):
        membership.switch(stores, "nil", "u", NOW)
    stores.registry.add(Cluster("edge", "u1"))
    membership.remove(stores, "edge", "ada", False, NOW)
    with pytest.raises(RegistryError, match="being removed"):
        membership.accept(stores, "edge", "u1", NOW)
    with pytest.raises(RegistryError, match="being removed"):
        membership.switch(stores, "edge", "u", NOW)
