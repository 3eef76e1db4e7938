"""Bodies from elsewhere, of each length and of no sense."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol

from gateway.bounded import json_object, read_whole


class Connected(BaseProtocol):
    """Of a connection that is open."""

    @property
    def connected(self) -> bool:
        return True


async def content(*pieces: bytes, end: bool = True) -> aiohttp.StreamReader:
    """As it comes from a connection."""
    loop = asyncio.get_running_loop()
    reader = aiohttp.StreamReader(Connected(loop), 2**16, loop=loop)
    for piece in pieces:
        reader.feed_data(piece)
    if end:
        reader.feed_eof()
    return reader


@pytest.mark.parametrize("pieces", [(), (b"abcd",), (b"a", b"b", b"cd")], ids=["nothing", "one piece", "pieces"])
async def test_what_there_is_room_for_is_read_whole(pieces: tuple[bytes, ...]) -> None:
    assert await read_whole(await content(*pieces), 4) == b"".join(pieces)


@pytest.mark.parametrize("pieces", [(b"abcde",), (b"abcd", b"e")], ids=["one piece", "pieces"])
async def test_a_byte_more_is_too_long_whether_it_ends_or_not(pieces: tuple[bytes, ...]) -> None:
    assert await read_whole(await content(*pieces), 4) is None
    assert await asyncio.wait_for(read_whole(await content(*pieces, end=False), 4), 1) is None


async def test_a_body_that_is_cut_is_none() -> None:
    reader = await content(b"ab", end=False)
    reader.set_exception(aiohttp.ClientPayloadError("cut"))
    with pytest.raises(aiohttp.ClientPayloadError):
        await read_whole(reader, 4)


async def test_who_waits_for_the_rest_can_be_cancelled() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read_whole(await content(b"ab", end=False), 4), 0.01)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"a": [1]}', {"a": [1]}), (b" {} \n", {}), (b"", None), (b"<html>", None), (b"[]", None), (b"null", None),
        (b"{", None), (b'{"a": NaN}', None), (b'"\xff"', None), (b"[" * 100_000, None),
    ],
    ids=["object", "empty object", "nothing", "html", "list", "null", "cut", "NaN", "no UTF-8", "deep"],
)  # fmt: skip
def test_a_json_object_is_one_and_nothing_else_is(body: bytes, found: object) -> None:
    assert json_object(body) == found
