"""Whatever happens to the objects and to the connection: in the end what is known is what there is, and who replays the
changes knows the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import aiohttp
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes_asyncio import client

from gateway.hub.informer import Informer, InformerTiming, Source
from tests.gateway.hub.scripted_hub import Read, spec
from tests.gateway.hub.simulated_hub import Hub

AT_ONCE = InformerTiming(least=0.0, most=0.0, longest=0.0, check=0.0)
NAMES = st.sampled_from("abcde")
VALUES = st.sampled_from(["1", "2", "3", None])

Act = Callable[[Hub], Any]
TRUE: list[st.SearchStrategy[Act]] = [
    st.builds(lambda name, value: lambda hub: hub.put(name, value), NAMES, VALUES),
    st.builds(lambda name: lambda hub: hub.delete(name), NAMES),
    st.just(lambda hub: hub.end(None)),
    st.just(lambda hub: hub.end(aiohttp.ClientPayloadError())),
    st.just(lambda hub: hub.end(b'{"type": "ADDED", "obj')),
    st.just(lambda hub: hub.end(b"garbage\n")),
    st.just(lambda hub: hub.end(b'{"type": "ERROR", "object": {"code": 500}}\n')),
    st.just(Hub.compact),
    st.just(Hub.bookmark),
    st.builds(lambda status: lambda hub: hub.refusals.append(status), st.sampled_from([0, 401, 410, 429, 500, 503])),
    st.builds(lambda count: lambda hub: setattr(hub, "compacts_in_lists", count), st.integers(1, 3)),
    st.builds(lambda yes: lambda hub: setattr(hub, "gone_as_event", yes), st.booleans()),
]
REPEATS: st.SearchStrategy[Act] = st.builds(lambda count: lambda hub: hub.repeat(count), st.integers(1, 4))
LOSSES: list[st.SearchStrategy[Act]] = [
    st.builds(lambda name, value: lambda hub: hub.put(name, value, lost=True), NAMES, VALUES),
    st.builds(lambda name: lambda hub: hub.delete(name, lost=True), NAMES),
]
WAIT: st.SearchStrategy[Act] = st.builds(lambda: lambda _: None)


def acts(*more: st.SearchStrategy[Act]) -> st.SearchStrategy[list[tuple[Act, int]]]:
    """What happens, and for how many turns of the loop nothing does afterwards."""
    return st.lists(st.tuples(st.one_of(*TRUE, *more, WAIT), st.sampled_from([0, 0, 1, 3, 10])), max_size=40)


async def lived(script: list[tuple[Act, int]]) -> tuple[Hub, Informer[str], list[Read]]:
    """An informer's life with a hub to which all this happens, and which is well at last."""
    hub = Hub()
    informer = Informer(cast("client.ApiClient", hub), Source("/apis"), spec, lambda: 0.5, AT_ONCE)
    first, late = Read(), Read()
    informer.subscribe(first.hear)
    running = asyncio.create_task(informer.run())
    for number, (act, turns) in enumerate(script):
        act(hub)
        if number == len(script) // 2:
            informer.subscribe(late.hear)
        for _ in range(turns):
            await asyncio.sleep(0)
    hub.refusals.clear()
    await settled(hub, informer)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return hub, informer, [first, late] if script else [first]


async def settled(hub: Hub, informer: Informer[str]) -> None:
    """Every watch has come to where the hub is, and a check has found nothing since."""
    for _ in range(3):
        for _ in range(60):
            await asyncio.sleep(0)
        hub.bookmark()
        for _ in range(10):
            await asyncio.sleep(0)
        hub.end(None)
    for _ in range(60):
        await asyncio.sleep(0)
    assert informer.problem is None
    assert hub.watches, "it watches"


def agree(hub: Hub, informer: Informer[str], reads: list[Read]) -> None:
    there = {name: value for name, (_, value) in hub.objects.items() if value is not None}
    assert dict(informer.items) == there
    for read in reads:
        assert read.replayed == there


@given(acts())
@settings(max_examples=300, deadline=None)
def test_what_is_known_is_what_there_is_and_no_check_says_otherwise(script: list[tuple[Act, int]]) -> None:
    hub, informer, reads = asyncio.run(lived(script))
    agree(hub, informer, reads)
    assert informer.counts.differences == 0


@given(acts(REPEATS))
@settings(max_examples=150, deadline=None)
def test_events_that_come_again_do_no_harm(script: list[tuple[Act, int]]) -> None:
    agree(*asyncio.run(lived(script)))


@given(acts(REPEATS, *LOSSES))
@settings(max_examples=150, deadline=None)
def test_what_a_watch_never_told_is_found_by_checks(script: list[tuple[Act, int]]) -> None:
    agree(*asyncio.run(lived(script)))
