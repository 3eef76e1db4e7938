"""The API of a cluster that is to join: whatever it answers."""

from __future__ import annotations

import ssl

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from gateway.joining.client import MOST, ClusterClient, ClusterReply
from gateway.joining.install import JoinFailed
from gateway.joining.kubeconfig import Target


async def asked(status: int, body: bytes) -> ClusterReply:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(status=status, body=body)

    async with RawTestServer(answer) as server:
        url = str(server.make_url("")).rstrip("/")
        async with ClusterClient(Target(url, ssl.create_default_context())) as cluster:
            return await cluster.send("GET", "/version")


@pytest.mark.parametrize(
    ("status", "body", "found", "message"),
    [
        (200, b'{"message": "one\\ntwo"}', {"message": "one\ntwo"}, "one two"),
        (403, b'{"message": "no"}', {"message": "no"}, "no"),
        (502, b"<html>", {}, "status 502"),
        (200, b"[1]", {}, "status 200"),
    ],
    ids=["object", "Status", "html", "list"],
)
async def test_what_is_no_object_is_an_empty_one(status: int, body: bytes, found: object, message: str) -> None:
    reply = await asked(status, body)
    assert (reply.status, reply.body, reply.message) == (status, found, message)


async def test_an_answer_that_is_too_long_is_none() -> None:
    assert (await asked(200, b'{"a": "' + (MOST - 9) * b"x" + b'"}')).status == 200
    with pytest.raises(JoinFailed, match="cannot be used: its answer is too long"):
        await asked(200, (MOST + 1) * b"x")
