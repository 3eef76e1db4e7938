"""An informer and its hub, watching: what comes, what is cut, what is silent, what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.hub.informer import Delta, Informer, InformerTiming, Source
from gateway.hub.memory import Staging
from tests.gateway.hub.scripted_hub import (
    FAST,
    HANGS,
    PATH,
    SILENT,
    Answer,
    Read,
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

A = page(item("a", 1, "one"))
BOOKMARK = event("BOOKMARK", "", 15)


async def test_a_watch_goes_on_from_its_last_event_or_bookmark() -> None:
    first = Answer(pieces=[event("ADDED", "b", 11, "two"), BOOKMARK])
    hub = Scripted([A], [first, Answer(pieces=[event("DELETED", "a", 16), None])])
    async with informed(hub) as (informer, read):
        await until(lambda: len(hub.watched) == 2 and "a" not in informer.items)
        assert read.changes == [("a", None, "one"), ("b", None, "two"), ("a", "one", None)]
        assert dict(informer.items) == read.replayed == {"b": "two"}
        assert (hub.watched, hub.listed) == (["10", "15"], 1)
        assert informer.problem is None
        query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": "10", "timeoutSeconds": "5"}
        assert dict(hub.asked[1]) == query


@pytest.mark.parametrize("rest", [b"", event("ADDED", "c", 12, "x")[:-20]], ids=["between", "within"])
@pytest.mark.parametrize("end", [(False,), ()], ids=["reset", "closed"])
async def test_after_a_cut_the_watch_goes_on_and_nothing_is_listed(rest: bytes, end: Sequence[bool]) -> None:
    cut = Answer(pieces=[event("ADDED", "b", 11, "two"), *([rest] if rest else []), *end])
    hub = Scripted([A], [cut, Answer(pieces=[event("ADDED", "c", 12, "x"), None])])
    async with informed(hub) as (informer, read):
        await until(lambda: "c" in informer.items)
        assert (hub.watched, hub.listed) == (["10", "11"], 1)
        assert read.replayed == {"a": "one", "b": "two", "c": "x"}
        assert informer.problem is None


@pytest.mark.parametrize("pieces", [[b'{"ty', False], [b'{"ty'], [BOOKMARK[:20]]], ids=["reset", "closed", "later"])
async def test_a_cut_is_told_until_the_hub_has_said_something_again(pieces: list[bytes]) -> None:
    hub = Scripted([A], [Answer(pieces=pieces), HANGS])
    async with informed(hub) as (informer, _):
        await until(lambda: len(hub.watched) == 2)
        assert "may be old" in (informer.problem or "")
        assert dict(informer.items) == {"a": "one"}


@pytest.mark.parametrize("gone", [Answer(410), Answer(pieces=[error(410)])], ids=["status", "event"])
async def test_a_watch_that_is_too_old_lists_again_and_what_went_meanwhile_is_told(gone: Answer) -> None:
    after = page(item("b", 2, "two"), item("c", 3, "changed"), version="20")
    hub = Scripted([page(item("a", 1, "one"), item("b", 2, "two"), item("c", 1, "three")), after], [gone, HANGS])
    async with informed(hub) as (informer, read):
        await until(lambda: len(hub.watched) == 2)
        assert hub.watched == ["10", "20"]
        assert [len(batch) for batch in read.batches] == [3, 2], "a batch for each list"
        assert sorted(read.changes[3:]) == [("a", "one", None), ("c", "three", "changed")]
        assert informer.problem is None
        assert informer.counts.relists == 1


GARBAGE = {
    "no JSON": Answer(pieces=[b"<html>\n"]),
    "no object": Answer(pieces=[b"[1]\n"]),
    "no metadata": Answer(pieces=[b'{"type": "ADDED", "object": {}}\n']),
    "no object at all": Answer(pieces=[b'{"type": "ADDED"}\n']),
    "no version": Answer(pieces=[b'{"type": "BOOKMARK", "object": {"metadata": {}}}\n']),
    "a version that is no text": Answer(
        pieces=[b'{"type": "ADDED", "object": {"metadata": {"name": "x", "resourceVersion": 7}}}\n']
    ),
    "a huge line": Answer(pieces=[b"x" * (5 * 1024 * 1024), None]),
    "an internal error": Answer(500),
    "an error event": Answer(pieces=[error(500)]),
    "a moment that is yet to come": Answer(pieces=[error(504)]),
}


@pytest.mark.parametrize("broken", GARBAGE.values(), ids=GARBAGE)
async def test_what_cannot_be_gone_on_from_is_said_and_listed_again_and_what_is_known_stays(broken: Answer) -> None:
    hub = Scripted([A, SILENT], [broken])
    async with informed(hub) as (informer, read):
        await until(lambda: hub.listed == 2)
        assert "may be old" in (informer.problem or "")
        assert dict(informer.items) == {"a": "one"}
        assert len(read.batches) == 1


async def test_events_before_garbage_count() -> None:
    hub = Scripted([A, SILENT], [Answer(pieces=[event("ADDED", "b", 11, "two") + b"garbage\n"])])
    async with informed(hub) as (_, read):
        await until(lambda: hub.listed == 2)
        assert read.replayed == {"a": "one", "b": "two"}


async def test_one_read_is_one_batch_and_the_hubs_last_word_counts() -> None:
    burst = [event("ADDED", "a", 11, "again"), event("MODIFIED", "a", 12, "two"), event("DELETED", "a", 3, "old")]
    hub = Scripted([A], [Answer(pieces=[b"".join(burst) + event("DELETED", "none", 13), BOOKMARK, None])])
    async with informed(hub) as (informer, read):
        await until(lambda: len(read.batches) == 2 and not informer.items)
        assert [len(batch) for batch in read.batches] == [1, 3]
        assert read.changes[1:] == [("a", "one", "again"), ("a", "again", "two"), ("a", "two", None)]


async def test_duplicates_and_bookmarks_change_nothing() -> None:
    again = [event("ADDED", "a", 1, "one"), event("MODIFIED", "a", 1, "not even looked at"), BOOKMARK, BOOKMARK]
    hub = Scripted([A], [Answer(pieces=[*again, event("MODIFIED", "a", 17, "one")]), HANGS])
    async with informed(hub) as (informer, read):
        await until(lambda: len(hub.watched) == 2)
        assert read.changes == [("a", None, "one")], "and another version of the same value neither"
        assert hub.watched[1] == "17"
        assert informer.counts.relists == 0


async def test_a_hub_that_has_fallen_silent_is_asked_again_from_there() -> None:
    later = Answer(pieces=[event("DELETED", "a", 12), None])
    hub = Scripted([A], [HANGS, SILENT, later])
    timing = replace(FAST, watch=0.05, slack=0.05, answer=0.05)
    async with informed(hub, timing) as (informer, _):
        await until(lambda: informer.problem is not None and informer.synced.is_set())
        assert "does not answer" in (informer.problem or "")
        assert dict(informer.items) == {"a": "one"}
        await until(lambda: not informer.items)
        assert (hub.watched[:3], hub.listed) == (["10"] * 3, 1)


async def test_a_watch_whose_answer_does_not_begin_is_given_up_sooner() -> None:
    """A connection that has died in the pool must not cost a whole watch."""
    hub = Scripted([A], [SILENT, Answer(pieces=[event("DELETED", "a", 12), None])])
    async with informed(hub, replace(FAST, answer=0.05)) as (informer, _):
        await until(informer.synced.is_set)
        await until(lambda: not informer.items, 1)


def test_silence_is_noticed_soon_enough_for_what_was_taken_away() -> None:
    """Streams of a grant that is gone end within 30 s: 5 of them pass until the next look at a stream."""
    timing = InformerTiming()
    one_dead_pool_connection = timing.answer + timing.least
    assert timing.watch + timing.slack + timing.least + one_dead_pool_connection + 5 < 30


async def test_staleness_grows_until_the_hub_confirms() -> None:
    now = [100.0]
    hub = Scripted([A], [HANGS, HANGS])
    async with informed(hub, clock=lambda: now[0]) as (informer, _):
        assert informer.staleness(107.0) == 7.0
        now[0] = 110.0
        await until(informer.synced.is_set)
        assert informer.staleness(now[0]) == 0.0
        now[0] = 140.0
        assert informer.staleness(now[0]) == 30.0
        assert informer.staleness(90.0) == 0.0


@pytest.mark.parametrize(
    "confirms",
    [Answer(pieces=[BOOKMARK, None]), Answer(pieces=[event("ADDED", "b", 11, "x"), None]), Answer()],
    ids=["bookmark", "event", "orderly end"],
)
async def test_what_confirms_ends_the_problem(confirms: Answer) -> None:
    hub = Scripted([A], [Answer(503), confirms, confirms])
    now = [100.0]
    async with informed(hub, replace(FAST, least=0.05, most=0.05), clock=lambda: now[0]) as (informer, _):
        await until(lambda: "503" in (informer.problem or ""))
        now[0] = 110.0
        assert informer.staleness(now[0]) == 10.0
        assert "(confirmed 10 s ago)" in (informer.problem or "")
        await until(lambda: informer.problem is None)
        assert informer.staleness(now[0]) == 0.0
        assert hub.listed == 1, "a hub that is not there for a while needs no list"


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "credential"), (403, "may not list and watch"), (404, "CRD"), (429, "too busy"), (503, "503")],
)
@pytest.mark.parametrize("where", ["list", "watch"])
async def test_a_refusal_says_what_to_do(status: int, says: str, where: str) -> None:
    refusal = Answer(status, [b"token"])
    hub = Scripted([refusal], [HANGS]) if where == "list" else Scripted([A, refusal], [refusal])
    async with informed(hub) as (informer, _):
        await until(lambda: says in (informer.problem or ""))
        assert PATH in (informer.problem or "")
        assert "token" not in (informer.problem or "")
        assert informer.synced.is_set() == (where == "watch")


@pytest.mark.parametrize("where", ["list", "watch"])
async def test_retry_after_is_honoured(where: str) -> None:
    busy = Answer(429, headers={"Retry-After": "1"})
    hub = Scripted([busy, A] if where == "list" else [A], [HANGS] if where == "list" else [busy, HANGS])
    async with informed(hub) as (_, __):
        await until(lambda: len(hub.asked) == 3)
        before, after = (0, 1) if where == "list" else (1, 2)
        assert 0.95 < hub.times[after] - hub.times[before] < 1.5


@pytest.mark.parametrize("told", ["-1", "1e9", "nan", "Fri, 31 Dec 1999 23:59:59 GMT", "9" * 400, "٣"])
async def test_a_retry_after_that_cannot_be_meant_counts_for_nothing_or_little(told: str) -> None:
    hub = Scripted([Answer(429, headers={"Retry-After": told}), A], [HANGS])
    async with informed(hub, replace(FAST, longest=0.05)) as (informer, _):
        await until(informer.synced.is_set, 1)


@pytest.mark.parametrize("watch", [Answer(410), Answer(pieces=[b"garbage\n"]), Answer()], ids=["410", "garbage", "end"])
async def test_a_hub_that_ends_everything_is_not_asked_in_a_circle(watch: Answer) -> None:
    hub = Scripted([A], [watch])
    async with informed(hub, replace(FAST, least=0.05, most=1.0)) as (informer, _):
        await asyncio.sleep(0.25)
        assert 3 <= len(hub.asked) <= 14
        assert dict(informer.items) == {"a": "one"}


async def test_moments_that_are_over_now_and_then_are_no_trouble() -> None:
    gone = Answer(pieces=[BOOKMARK, error(410)])
    hub = Scripted([A], [gone, gone, gone, gone, gone, HANGS])
    async with informed(hub, replace(FAST, least=0.06, most=60)) as (informer, _):
        await until(lambda: len(hub.watched) == 6, 1)
        assert informer.problem is None


async def test_lists_that_end_again_and_again_are_told() -> None:
    hub = Scripted([Answer(410)], [HANGS])
    async with informed(hub) as (informer, _):
        await until(lambda: "410" in (informer.problem or ""))


async def test_a_bug_is_logged_and_the_informer_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Scripted([A], [HANGS])
    async with serving(hub) as api:
        informer = Informer(api, Source(PATH), spec, lambda: 0.5, FAST)
        stage = informer._memory.stage
        failures = [RuntimeError("a bug")]

        def fails(trusted: bool = True) -> Staging[str]:
            if failures:
                raise failures.pop()
            return stage(trusted)

        monkeypatch.setattr(informer._memory, "stage", fails)
        running = asyncio.create_task(informer.run())
        await until(informer.synced.is_set)
        assert "an informer has failed" in caplog.text
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# --- subscribers


async def test_a_late_subscriber_gets_all_that_is_there_and_a_failing_one_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go = Answer(pieces=[event("ADDED", "b", 11, "two"), event("ADDED", "c", 12, "three"), None])
    hub = Scripted([A], [Answer(), go])
    async with informed(hub, replace(FAST, least=0.1)) as (informer, read):

        def fails(_deltas: Sequence[Delta[str]]) -> None:
            raise ValueError("a bug of mine")

        ends = informer.subscribe(fails)
        await until(informer.synced.is_set)
        late, gone = Read(), Read()
        informer.subscribe(late.hear)
        end = informer.subscribe(gone.hear)
        end()
        end()
        await until(lambda: "c" in informer.items)
        ends()
        assert late.replayed == read.replayed == dict(informer.items)
        assert late.batches[0] == [Delta("a", None, "one")]
        assert gone.batches == [[Delta("a", None, "one")]]
        assert "was not taken" in caplog.text


async def test_who_is_let_go_by_another_is_told_no_more() -> None:
    hub = Scripted([A], [HANGS])
    async with serving(hub) as api:
        informer = Informer(api, Source(PATH), spec, lambda: 0.5, FAST)
        told: list[str] = []

        def lets_go(_deltas: Sequence[Delta[str]]) -> None:
            told.append("first")
            end()

        informer.subscribe(lets_go)
        end = informer.subscribe(lambda _: told.append("second"))
        running = asyncio.create_task(informer.run())
        await until(informer.synced.is_set)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert told == ["first"]


# --- the end


@pytest.mark.parametrize("where", ["head", "page", "watch", "pause"])
async def test_cancelled_anywhere_it_leaves_no_connection_in_use(where: str) -> None:
    lists = {"head": SILENT, "page": Answer(pieces=[b"{", None]), "pause": Answer(500)}
    hub = Scripted([lists.get(where, A)], [HANGS])
    async with serving(hub) as api:
        timing = replace(FAST, least=60, most=60) if where == "pause" else FAST
        informer = Informer(api, Source(PATH), spec, lambda: 0.5, timing)
        running = asyncio.create_task(informer.run())
        await until(lambda: len(hub.asked) == (2 if where == "watch" else 1))
        await asyncio.sleep(0.03)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(0)
        connector = api.rest_client.pool_manager.connector
        assert connector is not None
        assert not connector._acquired
