"""An informer and its hub, listing and comparing: pages, their ends, their sizes, and what a check finds."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from gateway.hub import informer as module
from gateway.hub.informer import Informer, Source
from tests.gateway.hub.scripted_hub import (
    FAST,
    HANGS,
    PATH,
    SILENT,
    Answer,
    Scripted,
    error,
    event,
    informed,
    item,
    page,
    serving,
    spec,
    until,
)

A, B = item("a", 1, "one"), item("b", 2, "two")


async def test_pages_make_one_list() -> None:
    hub = Scripted([page(A, more="next"), page(item("b", 2, "two", namespace="ns"))], [HANGS])
    async with informed(hub) as (informer, read):
        await until(informer.synced.is_set)
        assert dict(informer.items) == {"a": "one", "ns/b": "two"}
        assert len(read.batches) == 1
        assert hub.asked[:2] == [{"limit": "500"}, {"limit": "500", "continue": "next"}]


async def test_a_list_of_nothing_is_told_too() -> None:
    nothing = Answer(pieces=[b'{"metadata": {"resourceVersion": "4"}, "items": null}'])
    hub = Scripted([nothing], [HANGS])
    async with informed(hub) as (informer, read):
        await until(informer.synced.is_set)
        assert read.batches == [[]]
        assert not informer.items


async def test_selectors_go_with_lists_and_watches() -> None:
    hub = Scripted([page(A)], [HANGS])
    async with serving(hub) as api:
        informer = Informer(api, Source(PATH, "app=kulvert,!old", "metadata.name=a"), spec, lambda: 0.5, FAST)
        turn = await informer._turn()
        assert turn == 0.0
        assert hub.asked[0]["labelSelector"] == "app=kulvert,!old"
        assert hub.asked[0]["fieldSelector"] == "metadata.name=a"
        assert informer._source.query == {k: v for k, v in hub.asked[0].items() if k != "limit"}


@pytest.mark.parametrize(
    "second", [Answer(410), page(B, version="11"), page(B, version="11", more="x")], ids=["expired", "other", "more"]
)
async def test_pages_that_are_not_of_one_moment_begin_again(second: Answer) -> None:
    """What an inconsistent continue would give is never mixed into what is known."""
    hub = Scripted([page(A, more="next"), second, page(A, B, version="20")], [HANGS])
    async with informed(hub) as (informer, read):
        await until(informer.synced.is_set)
        assert [query.get("continue") for query in hub.asked[:3]] == [None, "next", None]
        assert len(read.batches) == 1
        await until(lambda: hub.watched == ["20"])


@pytest.mark.parametrize("slow", [SILENT, Answer(pieces=[b'{"items": [', None])], ids=["no head", "no end"])
async def test_a_page_that_does_not_come_is_given_up_and_what_is_known_stays(slow: Answer) -> None:
    hub = Scripted([page(A), slow, page(B, version="30")], [Answer(410), HANGS])
    async with informed(hub, replace(FAST, page=0.1)) as (informer, _):
        await until(lambda: "does not answer" in (informer.problem or ""))
        assert dict(informer.items) == {"a": "one"}
        await until(lambda: dict(informer.items) == {"b": "two"})
        assert informer.problem is None


async def test_a_list_of_endless_pages_is_given_up() -> None:
    hub = Scripted([page(more="on")], [HANGS])
    async with informed(hub, replace(FAST, whole_list=0.1)) as (informer, _):
        await until(lambda: "does not answer" in (informer.problem or ""))
        assert not informer.synced.is_set()


BROKEN = {
    "no JSON": b"<html>",
    "no object": b"[]",
    "no items": b'{"metadata": {"resourceVersion": "1"}, "items": 7}',
    "no version": b'{"metadata": {}, "items": []}',
    "no metadata": b'{"items": []}',
    "items of nothing": b'{"metadata": {"resourceVersion": "1"}, "items": [7]}',
    "no name": b'{"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"resourceVersion": "1"}}]}',
    "continue is no text": b'{"metadata": {"resourceVersion": "1", "continue": 7}, "items": []}',
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
async def test_a_list_that_is_none_is_said_and_what_is_known_stays(body: bytes) -> None:
    hub = Scripted([page(A), Answer(pieces=[body])], [Answer(410)])
    async with informed(hub) as (informer, _):
        await until(lambda: "it gives" in (informer.problem or ""))
        assert dict(informer.items) == {"a": "one"}


async def test_pages_that_are_too_long_are_asked_for_smaller() -> None:
    long = Answer(pieces=[b" " * 4000])
    hub = Scripted([long, long, page(A)], [HANGS])
    async with serving(hub) as api:
        informer = Informer(api, Source(PATH), spec, lambda: 0.5, FAST)
        informer._lister._max_page = 3000
        await informer._turn()
        assert [query["limit"] for query in hub.asked] == ["500", "125", "31"]
        assert dict(informer.items) == {"a": "one"}


async def test_one_object_that_is_too_long_alone_is_said() -> None:
    hub = Scripted([Answer(pieces=[b" " * 4000])], [HANGS])
    async with serving(hub) as api:
        informer = Informer(api, Source(PATH), spec, lambda: 0.5, FAST)
        informer._lister._max_page = 3000
        await informer._turn()
        assert "too long" in (informer.problem or "")
        assert [query["limit"] for query in hub.asked] == ["500", "125", "31", "7", "1"]


# --- bounds


async def test_more_objects_than_memory_is_for_are_no_list() -> None:
    hub = Scripted([page(A, B, item("c", 3, "x"))], [HANGS])
    async with informed(hub, replace(FAST, most=60), most=2) as (informer, _):
        await until(lambda: "more than 2" in (informer.problem or ""))
        await asyncio.sleep(0.1)
        assert hub.listed == 1, "it will not be less so soon"
        assert not informer.items
        assert not informer.synced.is_set()


async def test_what_comes_beyond_is_said_and_what_is_known_is_followed() -> None:
    events = [event("ADDED", "c", 11, "x"), event("MODIFIED", "a", 12, "new"), event("DELETED", "b", 13)]
    hub = Scripted([page(A, B), page(A, version="20")], [Answer(pieces=[b"".join(events), None])])
    async with informed(hub, most=2) as (informer, _):
        await until(lambda: informer.items.get("a") == "new")
        assert dict(informer.items) == {"a": "new"}
        assert "more than 2 objects: new ones are not known" in (informer.problem or "")


async def test_a_list_that_has_grown_too_long_leaves_what_is_known() -> None:
    hub = Scripted([page(A, B), page(A, B, item("c", 3, "x"))], [Answer(410)])
    async with informed(hub, most=2) as (informer, _):
        await until(lambda: "more than 2" in (informer.problem or ""))
        assert dict(informer.items) == {"a": "one", "b": "two"}


# --- objects that cannot be read


async def test_an_object_that_cannot_be_read_is_skipped_and_named_without_its_content(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Scripted([page(A, item("bad", 3, ["secret"]))], [Answer(pieces=[event("MODIFIED", "a", 11, 7), None])])
    async with informed(hub) as (informer, read):
        await until(lambda: informer.skipped == 2)
        assert read.replayed == dict(informer.items) == {"a": "one"}, "it counts as it was"
        assert "2 of" in (informer.problem or "")
        assert "a, bad" in (informer.problem or "")
        assert "secret" not in (informer.problem or "") + caplog.text


async def test_it_is_well_again_once_it_can_be_read_or_is_gone() -> None:
    well = [event("MODIFIED", "worse", 11, "well"), event("DELETED", "bad", 12)]
    hub = Scripted([page(item("bad", 3, 7), item("worse", 4, 7))], [Answer(pieces=[*well, None])])
    async with informed(hub) as (informer, _):
        await until(lambda: dict(informer.items) == {"worse": "well"})
        await until(lambda: informer.problem is None)
        assert informer.skipped == 2


async def test_the_same_bad_version_is_not_looked_at_again() -> None:
    hub = Scripted([page(A, item("bad", 3, 7))], [Answer(410), HANGS])
    async with informed(hub) as (informer, _):
        await until(lambda: len(hub.watched) == 2)
        assert informer.skipped == 1
        assert "bad" in (informer.problem or "")


# --- checks

CHECKED = replace(FAST, check=0.0)


async def test_a_check_asks_for_the_very_moment_that_is_known_and_finds_nothing() -> None:
    watched = Answer(pieces=[event("ADDED", "b", 11, "two"), event("BOOKMARK", "", 15)])
    checks = [page(A, version="15", more="next"), page(item("b", 11), version="15")]
    hub = Scripted([page(A)], [Answer(pieces=[]), watched, HANGS], [page(A), *checks])
    async with informed(hub, CHECKED) as (informer, read):
        await until(lambda: len(hub.watched) == 3)
        asked = [query for query, accept in zip(hub.asked, hub.accepts, strict=True) if "Partial" in accept]
        exact = {"limit": "500", "resourceVersionMatch": "Exact"}
        wanted = [exact | {"resourceVersion": "15"}, {"limit": "500", "continue": "next"}]
        assert asked[-2:] == wanted
        assert informer.counts.differences == informer.counts.relists == 0
        assert read.replayed == {"a": "one", "b": "two"}


@pytest.mark.parametrize(
    ("found", "count"),
    [(page(), 1), (page(A, B), 1), (page(item("a", 9)), 1), (page(B), 2)],
    ids=["one too many", "one is missing", "another version", "both"],
)
async def test_a_difference_is_counted_logged_and_mended(
    found: Answer, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Scripted([page(A), page(B, version="20")], [Answer(), HANGS], [found])
    async with informed(hub, CHECKED) as (informer, read):
        await until(lambda: "b" in informer.items)
        assert read.replayed == dict(informer.items) == {"b": "two"}
        assert informer.counts.differences == count
        assert informer.counts.relists == 1
        assert "differs from what the hub has" in caplog.text
        assert informer.problem is None


@pytest.mark.parametrize("status", [410, 504, 400])
async def test_a_moment_that_the_hub_does_not_have_lists_again_without_a_difference(status: int) -> None:
    hub = Scripted([page(A), page(B, version="20")], [Answer(), HANGS], [Answer(status)])
    async with informed(hub, CHECKED) as (informer, _):
        await until(lambda: "b" in informer.items)
        assert informer.counts.differences == 0


async def test_a_hub_that_was_set_back_gives_a_version_twice_and_the_values_are_made_again() -> None:
    """After its store was restored, versions that were given out come again, for other objects."""
    hub = Scripted([page(A), page(item("a", 1, "restored"), version="5")], [Answer(pieces=[error(504)]), HANGS])
    async with informed(hub) as (_, read):
        await until(lambda: read.replayed == {"a": "restored"})


@pytest.mark.parametrize("status", [504, 410])
async def test_a_watch_that_says_nothing_may_be_of_a_moment_that_is_not_there(status: int) -> None:
    hub = Scripted([page(A), page(item("a", 1, "restored"), version="5")], [Answer(), HANGS])
    hub.probe = status
    async with informed(hub) as (informer, read):
        await until(lambda: len(hub.watched) == 2)
        assert hub.probed == ["10"]
        assert hub.watched == ["10", "5"]
        assert read.replayed == {"a": "restored" if status == 504 else "one"}
        assert informer.counts.relists == 1


async def test_a_watch_that_says_something_is_of_a_moment_that_is_there() -> None:
    hub = Scripted([page(A)], [Answer(pieces=[event("BOOKMARK", "", 15)]), HANGS])
    async with informed(hub) as _:
        await until(lambda: len(hub.watched) == 2)
        assert hub.probed == []


async def test_an_ordinary_list_makes_no_value_again_whose_version_is_known() -> None:
    made = []

    def view(document: module.Object) -> str:
        made.append(document["metadata"]["name"])
        return str(document["spec"])

    after = page(A, item("b", 9, "new"), version="20")
    hub = Scripted([page(A, B), after], [Answer(410), Answer(504), Answer(410), HANGS])
    async with informed(hub, view=view) as (informer, read):
        await until(lambda: read.replayed.get("b") == "new")
        assert made == ["a", "b", "b"]
        await until(lambda: informer.counts.relists == 3)
        assert made == ["a", "b", "b", "a", "b"], "once without trust, and then again with it"


async def test_a_check_that_fails_is_no_reason_to_list() -> None:
    hub = Scripted([page(A)], [Answer(), HANGS], [Answer(503)])
    async with informed(hub, CHECKED) as (informer, _):
        await until(lambda: "503" in (informer.problem or "") or len(hub.watched) > 1)
        assert informer.counts.relists == 0
        assert dict(informer.items) == {"a": "one"}


async def test_what_there_is_no_room_for_is_no_difference() -> None:
    beyond = Answer(pieces=[event("ADDED", "c", 11, "x")])
    hub = Scripted([page(A)], [beyond, HANGS], [page(A, item("c", 11))])
    async with informed(hub, CHECKED, most=1) as (informer, _):
        await until(lambda: len(hub.watched) == 2)
        assert informer.counts.differences == 0
        assert "more than 1" in (informer.problem or "")


def test_the_scripts_pages_are_as_a_hubs() -> None:
    piece = page(A).pieces[0]
    assert isinstance(piece, bytes)
    assert json.loads(piece)["items"] == [A]
