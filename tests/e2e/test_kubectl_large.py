"""Many objects and large ones, through the gateway: in chunks, whole, at the limit, and beyond it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.support.cluster import Cluster
from tests.support.cluster_api import ApiError, Object
from tests.support.kubectl import Result
from tests.support.kubectl_through import Requests, Through, through
from tests.support.platform import Platform

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
CROWD = 5_000
MIB = 1 << 20


@pytest.fixture
def kubectl(platform: Platform, cluster_a: Cluster) -> Through:
    return through(platform, cluster_a)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crowd(cluster_a: Cluster) -> AsyncIterator[None]:
    """5,000 ConfigMaps, made and deleted past the gateway."""
    tls = cluster_a.api._context
    async with aiohttp.ClientSession(cluster_a.server, connector=aiohttp.TCPConnector(ssl=tls)) as session:
        numbers = iter(range(CROWD))

        async def create() -> None:
            for number in numbers:
                async with session.post(CONFIG_MAPS, json=one_of_many(number)) as answer:
                    assert answer.status == 201, await answer.text()

        try:
            await asyncio.gather(*(create() for _ in range(16)))
            yield
        finally:
            async with session.delete(CONFIG_MAPS, params={"labelSelector": "app=crowd"}) as answer:
                assert answer.status == 200, await answer.text()


def one_of_many(number: int) -> Object:
    metadata = {"name": f"crowd-{number:04}", "labels": {"app": "crowd"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"number": str(number)}}


NAMES = [f"configmap/crowd-{number:04}" for number in range(CROWD)]


@pytest.mark.usefixtures("crowd")
@pytest.mark.parametrize("chunk", [500, 0])
async def test_5000_objects_are_listed_whole_in_chunks_or_at_once(kubectl: Through, chunk: int) -> None:
    command = ("get", "configmaps", "-l", "app=crowd", "-o", "name", f"--chunk-size={chunk}", "-v=6")
    listed, direct = await kubectl.run(*command), await kubectl.past(*command)
    assert listed.check().out.splitlines() == NAMES
    assert lists(listed) == lists(direct)
    assert lists(listed) >= CROWD // chunk if chunk else lists(listed) == 1


def lists(told: Result) -> int:
    """How many requests a list took."""
    return len(re.findall(r'configmaps\?\S*labelSelector=app%3Dcrowd\S*" status="200 OK"', told.err))


@pytest.mark.usefixtures("crowd")
async def test_a_list_of_megabytes_is_the_same_to_the_byte(cluster_a: Cluster, kubectl: Through) -> None:
    version = (await cluster_a.api.get(f"{CONFIG_MAPS}?limit=1"))["metadata"]["resourceVersion"]
    exact = f"{CONFIG_MAPS}?labelSelector=app=crowd&resourceVersion={version}&resourceVersionMatch=Exact"
    listed = await kubectl.same("get", "--raw", exact)
    assert len(listed.check().stdout) > 2 * MIB
    assert len(json.loads(listed.stdout)["items"]) == CROWD


@pytest.mark.usefixtures("crowd")
async def test_a_table_of_5000_rows(kubectl: Through) -> None:
    listed = await kubectl.run("get", "configmaps", "-l", "app=crowd", "--no-headers")
    assert [line.split()[0] for line in listed.check().out.splitlines()] == [name.partition("/")[2] for name in NAMES]


async def test_a_config_map_of_a_mebibyte_goes_there_and_comes_back(kubectl: Through, tmp_path: Path) -> None:
    file = tmp_path / "content"
    file.write_text(text(MIB - len("content")))
    (await kubectl.run("create", "configmap", "large", f"--from-file={file}")).check()
    back = await kubectl.same("get", "configmap", "large", "-o", "jsonpath={.data.content}")
    assert hashlib.sha256(back.check().stdout).digest() == hashlib.sha256(file.read_bytes()).digest()
    (await kubectl.run("delete", "configmap", "large")).check()


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (MIB + 1, "Too long: may not be more than 1048576 bytes"),
        (8 * MIB, "Request entity too large: limit is 3145728"),
    ],
)
async def test_what_is_too_large_is_refused_in_the_clusters_words(
    kubectl: Through, tmp_path: Path, size: int, words: str
) -> None:
    file = tmp_path / "content"
    file.write_text(text(size))
    refused = await kubectl.same("create", "configmap", "too-large", f"--from-file={file}")
    assert refused.returncode == 1
    assert words in refused.err


@pytest.mark.parametrize(("size", "code"), [(MIB + 1, 422), (3 * MIB + 1024, 413)])
async def test_a_refusal_for_size_is_the_clusters_answer_untouched(
    platform: Platform, cluster_a: Cluster, size: int, code: int
) -> None:
    requests = Requests(platform, "alpha")
    body = {**one_of_many(0), "data": {"content": text(size)}}
    with pytest.raises(ApiError) as direct:
        await cluster_a.api.request("POST", CONFIG_MAPS, body)
    with pytest.raises(ApiError) as ours:
        await requests.api.request("POST", requests.prefix + CONFIG_MAPS, body)
    assert (ours.value.status, str(ours.value)) == (direct.value.status, str(direct.value))
    assert ours.value.status == code
    assert (await requests.get_all("/version"))[0][0] == 200


def text(size: int) -> str:
    line = "".join(chr(ord("a") + number % 26) for number in range(63)) + "\n"
    return (line * (size // len(line) + 1))[:size]


async def test_fifty_requests_at_once_are_not_mixed_up(platform: Platform) -> None:
    requests = Requests(platform, "alpha")
    paths = [f"{requests.prefix}/api/v1/namespaces/default/configmaps/absent-{number}" for number in range(50)]
    answers = await asyncio.gather(*(requests.api.get(path) for path in paths), return_exceptions=True)
    named = [re.search(r"absent-\d+", str(answer)) for answer in answers]
    assert [found and found[0] for found in named] == [f"absent-{number}" for number in range(50)]
