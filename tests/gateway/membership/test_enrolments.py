"""Requests of agents that wait: one for each key, bounded, and forgotten when nobody repeats them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.database import RegistryError
from gateway.membership.enrolments import OF_TOKEN, WRITTEN, Choice, Enrolment, EnrolmentSettings, State
from gateway.membership.stores import Stores

ASKED = Enrolment("edge", "u1", "key", "agent-1", "192.0.2.1", "tok", 100.0, 100.0, message="wait")


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    made = Stores.open(tmp_path / "clusters.db")
    yield made
    made.close()


def test_settings_that_would_undo_what_they_are_for_are_told() -> None:
    assert list(EnrolmentSettings().problems()) == []
    wrong = EnrolmentSettings(certificate_lifetime=60, takeover_grace=0, request_lifetime=1)
    names = [problem.partition(" ")[0] for problem in wrong.problems()]
    assert names == [
        "enrolment.certificateLifetime", "enrolment.takeoverGrace", "enrolment.requestLifetime",
    ]  # fmt: skip
    assert list(EnrolmentSettings(certificate_lifetime=1e9).problems())


def test_a_request_that_is_repeated_is_the_same_one_and_what_was_decided_stays(stores: Stores, tmp_path: Path) -> None:
    store = stores.enrolments
    store.told(ASKED)
    store.decide([ASKED.key, ("edge", "u1", "gone")], Choice.ACCEPTED)
    store.told(replace(ASKED, first=200.0, last=200.0, state=State.WAITING, message="other"))
    again = Stores.open(tmp_path / "clusters.db")
    assert again.enrolments.list() == store.list()
    again.close()
    (kept,) = store.list()
    assert (kept.first, kept.last, kept.choice, kept.state) == (100.0, 200.0, Choice.ACCEPTED, State.WAITING)


def test_one_that_asks_every_few_seconds_is_not_written_each_time(stores: Stores) -> None:
    store = stores.enrolments
    store.told(ASKED)
    store.told(replace(ASKED, first=110.0, last=110.0))
    assert store.list()[0].last == 100.0
    store.told(replace(ASKED, last=100.0 + WRITTEN))
    assert store.list()[0].last == 100.0 + WRITTEN
    store.told(replace(ASKED, last=101.0 + WRITTEN, address="192.0.2.1:40000", agent="another"))
    assert store.list()[0].last == 100.0 + WRITTEN


def test_what_another_process_has_decided_is_not_overwritten(stores: Stores, tmp_path: Path) -> None:
    stores.enrolments.told(ASKED)
    command = Stores.open(tmp_path / "clusters.db")
    command.enrolments.decide([ASKED.key], Choice.DENIED)
    stores.enrolments.told(replace(ASKED, last=100.0 + WRITTEN))
    stores.registry.poll()
    command.registry.poll()
    found = [one.enrolments.list()[0] for one in (stores, command)]
    command.close()
    assert [(one.choice, one.last) for one in found] == [(Choice.DENIED, 100.0 + WRITTEN)] * 2


def test_a_flood_with_one_token_leaves_room_for_others(stores: Stores) -> None:
    store = stores.enrolments
    for number in range(OF_TOKEN):
        store.told(replace(ASKED, fingerprint=f"{number}"))
    with pytest.raises(RegistryError, match="too many"):
        store.told(replace(ASKED, fingerprint="one more"))
    store.told(replace(ASKED, fingerprint="3", message="again"))
    store.told(replace(ASKED, fingerprint="one more", token="another"))
    assert len(store.list()) == OF_TOKEN + 1


def test_who_asks_no_more_is_forgotten(stores: Stores) -> None:
    store = stores.enrolments
    store.told(ASKED)
    store.told(replace(ASKED, fingerprint="later", last=200.0))
    assert store.drop_expired(3700.0, 3600.0) == 1
    assert [one.fingerprint for one in store.list()] == ["later"]
    store.remove(store.list()[0].key)
    store.remove(ASKED.key)
    assert store.list() == ()


def test_what_nobody_has_decided_about_is_asking(stores: Stores) -> None:
    store = stores.enrolments
    for uid, key in (("u1", "a"), ("u1", "b"), ("u2", "c"), ("u3", "d")):
        store.told(replace(ASKED, cluster_id=uid, fingerprint=key))
    store.decide([("edge", "u2", "c")], Choice.DENIED)
    assert store.asking() == {"edge": ("u1", "u3")}
    assert store.remove_of("edge") == 4
