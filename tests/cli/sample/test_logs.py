"""Logs of the demo pod, which is a real process, and of others, which are not."""

from __future__ import annotations

import asyncio

import pytest

from tests.cli.sample.client import PODS, Client

LOG = f"{PODS}/demo/log"


async def lines(client: Client, query: str = "") -> list[str]:
    return str(await client.get(f"{LOG}?{query}")).splitlines()


async def wait_for_lines(client: Client, number: int) -> None:
    """Follow until that many have come."""
    async with client.raw("GET", f"{LOG}?follow=true") as response, asyncio.timeout(10):
        for _ in range(number):
            await response.content.readline()


async def test_the_demo_pod_writes_lines(client: Client) -> None:
    await wait_for_lines(client, 3)
    assert "line 1 of the Kulvert sample" in (await lines(client))[0]


async def test_the_tail_is_the_last_lines(client: Client) -> None:
    await wait_for_lines(client, 3)
    assert len(await lines(client, "tailLines=2")) == 2
    assert await lines(client, "tailLines=0") == []


async def test_followed_lines_come_one_by_one(client: Client) -> None:
    async with client.raw("GET", f"{LOG}?follow=true&tailLines=0") as response:
        read = [(await response.content.readline()).decode() for _ in range(3)]
    numbers = [int(line.split()[2]) for line in read]
    assert numbers == list(range(numbers[0], numbers[0] + 3))


async def test_following_ends_with_the_pod(client: Client) -> None:
    async with client.raw("GET", f"{LOG}?follow=true") as response:
        await response.content.readline()
        await client.ask("DELETE", f"{PODS}/demo")
        async with asyncio.timeout(5):
            await response.read()


async def test_bytes_are_limited_and_times_are_shown(client: Client) -> None:
    await wait_for_lines(client, 1)
    assert len(await client.get(f"{LOG}?limitBytes=5")) == 5
    stamp = (await lines(client, "timestamps=true"))[0].split()[0]
    assert stamp.endswith("Z")


async def test_only_what_is_recent_can_be_asked_for(client: Client) -> None:
    await wait_for_lines(client, 1)
    assert await lines(client, "sinceTime=2100-01-01T00:00:00Z") == []
    assert await lines(client, "sinceSeconds=3600")


BAD = ["container=none", "previous=true", "sinceTime=x", "tailLines=-1"]


@pytest.mark.parametrize("query", BAD)
async def test_a_log_that_is_not_there_is_refused(client: Client, query: str) -> None:
    assert (await client.ask("GET", f"{LOG}?{query}"))[0] == 400


async def test_one_of_several_containers_must_be_named(client: Client) -> None:
    spec = {"containers": [{"name": "a"}, {"name": "b"}]}
    await client.create(PODS, {"metadata": {"name": "two"}, "spec": spec})
    status, body = await client.ask("GET", f"{PODS}/two/log")
    assert (status, "choose one of: [a b]" in body["message"]) == (400, True)


async def test_the_log_of_another_pod_says_that_nothing_runs_in_it(client: Client) -> None:
    await client.create(PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}})
    assert "no image is run" in await client.get(f"{PODS}/p/log")


async def test_a_log_is_of_a_pod_that_is_there(client: Client) -> None:
    assert (await client.ask("GET", f"{PODS}/none/log"))[0] == 404


async def test_a_client_that_stops_following_leaves_nothing_waiting(client: Client) -> None:
    before = len(asyncio.all_tasks())
    async with client.raw("GET", f"{LOG}?follow=true") as response:
        await response.content.readline()
    for _ in range(250):
        await asyncio.sleep(0.02)
        if len(asyncio.all_tasks()) <= before:
            return
    raise AssertionError(asyncio.all_tasks())
