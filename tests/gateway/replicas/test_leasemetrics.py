"""What Prometheus sees of a replica's Leases."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import exposition, registry_of
from gateway.replicas.leasemetrics import LeasesCollector
from stub.leases.elected import Elected
from stub.leases.sharded import Sharded
from stub.ownership import Ownership
from tests.stub.leases.world import SHARDED, STANDBY, world
from tests.support.owners import Owners


def shown(member: Elected | Sharded, ownership: Ownership | None = None) -> Mapping[str, float]:
    """Samples by name; labels are the leader's Lease at most."""
    text = exposition(registry_of([LeasesCollector(member, ownership or member, "kulvert")])).decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    assert all(one.labels == {"name": "kulvert"} for one in samples if "leader_election" in one.name)
    assert not any(one.labels for one in samples if "leader_election" not in one.name)
    return {one.name.removeprefix("kulvert_"): one.value for one in samples}


def test_in_standby_one_leads_and_has_all() -> None:
    with world(Elected, STANDBY) as within:
        within.start("a")
        within.run(5)
        within.start("b")
        within.run(5)
        a, b = (shown(within.processes[one].owner) for one in "ab")
        assert (a["leader_election_master_status"], b["leader_election_master_status"]) == (1, 0)
        assert (a["leader"], b["leader"]) == (1, 0)
        assert (a["shards_held"], a["shards"], b["shards_held"], b["shards"]) == (1, 1, 0, 1)
        assert (a["leader_election_transitions_total"], b["leader_election_transitions_total"]) == (1, 0)
        assert 1_000_000 <= a["leader_election_acquired_timestamp_seconds"] <= 1_000_005
        assert "leader_election_acquired_timestamp_seconds" not in b
        assert a["replicas"] == b["replicas"] == 2


def test_sharded_replicas_share_all_shards() -> None:
    with world(Sharded, SHARDED) as within:
        within.start("a")
        within.start("b")
        within.run(20, within.all_owned)
        a, b = (shown(within.processes[one].owner) for one in "ab")
        assert a["shards"] == b["shards"] == 6
        assert a["shards_held"] + b["shards_held"] == 6


def test_a_renewal_that_fails_is_counted_and_its_age_grows_until_one_is_done() -> None:
    with world(Elected, STANDBY) as within:
        one = within.start("a")
        assert "lease_renewal_age_seconds" not in shown(one.owner), "none was done yet"
        within.run(5)
        before = shown(one.owner)
        assert before["lease_renewal_age_seconds"] <= 1.3
        assert 0 < before["lease_renewal_latency_seconds"] < 0.2
        assert before["lease_renewal_failures_total"] == 0
        one.store.down = True
        within.run(10)
        away = shown(one.owner)
        assert away["lease_renewal_age_seconds"] >= 9, "also when nothing is held any more"
        assert (away["shards_held"], away["leader"]) == (0, 0)
        assert away["lease_renewal_failures_total"] >= 4
        one.store.down = False
        within.run(5)
        again = shown(one.owner)
        assert again["lease_renewal_age_seconds"] <= 1.3
        assert again["shards_held"] == 1


def test_who_has_the_lease_leads_only_when_the_server_acts_as_the_leader() -> None:
    owners = Owners("a")
    with world(Elected, STANDBY) as within:
        member = within.start("a").owner
        within.run(5)
        found = shown(member, owners)
        assert (found["leader_election_master_status"], found["leader"]) == (1, 0)
        owners.hold("a")
        assert shown(member, owners)["leader"] == 1
