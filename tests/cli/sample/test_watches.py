"""Watches, read as transcripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cli.sample import SampleServer
from tests.cli.sample.client import CONFIGMAPS, TABLE, Client, config_map, connect, events

MERGE = "application/merge-patch+json"


@asynccontextmanager
async def watching(client: Client, query: str, **headers: str) -> AsyncIterator[AsyncIterator[Any]]:
    async with client.raw("GET", f"{CONFIGMAPS}?watch=true&{query}", headers) as response:
        assert response.status == 200
        yield events(response)


async def read(stream: AsyncIterator[Any], number: int) -> list[tuple[str, str]]:
    async with asyncio.timeout(5):
        return [brief(await anext(stream)) for _ in range(number)]


def brief(event: Any) -> tuple[str, str]:
    return event["type"], event["object"]["metadata"].get("name", "")


async def version(client: Client) -> str:
    return str((await client.get(CONFIGMAPS))["metadata"]["resourceVersion"])


async def test_changes_arrive_as_they_happen(client: Client) -> None:
    async with watching(client, f"resourceVersion={await version(client)}") as stream:
        await client.create(CONFIGMAPS, config_map("a"))
        await client.ask("PATCH", f"{CONFIGMAPS}/a", {"data": {"x": "1"}}, Content_Type=MERGE)
        await client.ask("DELETE", f"{CONFIGMAPS}/a")
        assert await read(stream, 3) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_what_happened_since_a_version_is_told_first(client: Client) -> None:
    since = await version(client)
    await client.create(CONFIGMAPS, config_map("a"))
    async with watching(client, f"resourceVersion={since}") as stream:
        assert await read(stream, 1) == [("ADDED", "a")]


async def test_without_a_version_it_begins_with_what_is_there(client: Client) -> None:
    await client.create(CONFIGMAPS, config_map("a"))
    async with watching(client, "") as stream:
        assert await read(stream, 1) == [("ADDED", "a")]


async def test_a_streaming_list_ends_with_a_marked_bookmark(client: Client) -> None:
    await client.create(CONFIGMAPS, config_map("a"))
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with watching(client, query) as stream:
        assert await read(stream, 1) == [("ADDED", "a")]
        mark = await anext(stream)
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_an_object_enters_and_leaves_a_selection(client: Client) -> None:
    query = f"labelSelector=on%3Dyes&resourceVersion={await version(client)}"
    async with watching(client, query) as stream:
        await client.create(CONFIGMAPS, config_map("a"))
        for value in ("yes", "no"):
            labels = {"metadata": {"labels": {"on": value}}}
            await client.ask("PATCH", f"{CONFIGMAPS}/a", labels, Content_Type=MERGE)
        assert await read(stream, 2) == [("ADDED", "a"), ("DELETED", "a")]


async def test_other_namespaces_are_not_seen(client: Client) -> None:
    async with watching(client, f"resourceVersion={await version(client)}") as stream:
        await client.create("/api/v1/namespaces/kube-system/configmaps", config_map("other"))
        await client.create(CONFIGMAPS, config_map("mine"))
        assert await read(stream, 1) == [("ADDED", "mine")]


async def test_a_version_too_old_is_gone(client: Client) -> None:
    since = await version(client)
    for number in range(25):
        await client.create(CONFIGMAPS, config_map(f"a-{number}"))
    status, body = await client.ask("GET", f"{CONFIGMAPS}?watch=1&resourceVersion={since}")
    assert (status, body["reason"]) == (410, "Expired")


@pytest.mark.parametrize("query", ["resourceVersion=x", "sendInitialEvents=true", "timeoutSeconds=x"])
async def test_terms_that_cannot_be_read_are_refused(client: Client, query: str) -> None:
    assert (await client.ask("GET", f"{CONFIGMAPS}?watch=1&{query}"))[0] == 400


async def test_it_ends_after_its_timeout_with_a_last_bookmark(client: Client) -> None:
    query = f"timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion={await version(client)}"
    async with watching(client, query) as stream:
        assert [event["type"] async for event in stream] == ["BOOKMARK"]


async def test_bookmarks_come_from_time_to_time() -> None:
    async with SampleServer(bookmark_every=0.05) as server, connect(server) as client:
        query = f"allowWatchBookmarks=true&resourceVersion={await version(client)}"
        async with watching(client, query) as stream:
            assert await read(stream, 2) == [("BOOKMARK", ""), ("BOOKMARK", "")]


async def test_a_table_can_be_watched(client: Client) -> None:
    async with watching(client, f"resourceVersion={await version(client)}", Accept=TABLE) as stream:
        await client.create(CONFIGMAPS, config_map("a", x="1"))
        event = await anext(stream)
    assert (event["type"], event["object"]["kind"]) == ("ADDED", "Table")
    assert event["object"]["rows"][0]["cells"][:2] == ["a", 1]
