"""What happens to a request that goes wrong inside."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from cli.sample import SampleServer, resources
from cli.sample.journal import Journal
from cli.sample.store import Change, Store
from tests.cli.sample.client import CONFIGMAPS, PODS, Client, config_map, events


async def test_a_fault_is_a_status_that_tells_no_more_than_its_kind(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise ZeroDivisionError("a detail of the inside")

    monkeypatch.setattr(Store, "get", fail)
    status, body = await client.ask("GET", f"{PODS}/demo")
    assert (status, body["message"]) == (500, "Internal error occurred: ZeroDivisionError")


async def test_a_fault_in_the_middle_of_an_answer_ends_the_connection_with_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Journal, "since", fail)
    async with client.raw("GET", f"{PODS}/demo/log?follow=true") as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_watcher_that_falls_behind_is_told_in_the_stream(client: Client, sample: SampleServer) -> None:
    async with client.raw("GET", f"{CONFIGMAPS}?watch=true&resourceVersion=0") as response:
        stream = events(response)
        await client.create(CONFIGMAPS, config_map("a"))
        assert (await anext(stream))["type"] == "ADDED"
        _write_without_a_pause(sample)
        async with asyncio.timeout(5):
            error = (await anext(stream))["object"]
        assert (error["kind"], error["code"], error["reason"]) == ("Status", 410, "Expired")
        assert [event async for event in stream] == []


def _write_without_a_pause(sample: SampleServer) -> None:
    """More changes than the history holds, before the watcher has its turn."""
    store = sample.store
    stored = store.get(resources.CONFIGMAPS, "default", "a")
    journal: Journal[Change] = store.collection(resources.CONFIGMAPS).journal
    for _ in range(journal.end + 50):
        stored = store.replace(resources.CONFIGMAPS, stored, stored.data)
