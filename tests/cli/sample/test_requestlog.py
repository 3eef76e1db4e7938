"""What tests are told about the requests that arrived."""

from __future__ import annotations

from cli.sample import SampleServer
from tests.cli.sample.client import PODS, Client, connect


async def test_requests_are_kept_as_they_were_sent(client: Client, sample: SampleServer) -> None:
    sample.requests.clear()
    await client.get(f"{PODS}?labelSelector=app%3Ddemo", X_Twice="1")
    (logged,) = sample.requests
    assert (logged.method, logged.path) == ("GET", f"{PODS}?labelSelector=app%3Ddemo")
    assert logged.values("x-twice") == ["1"]
    assert logged.values("Impersonate-User") == ["ada"]


async def test_secrets_are_blanked(client: Client, sample: SampleServer) -> None:
    sample.requests.clear()
    protocols = "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0"
    await client.get(PODS, Cookie="a=b", Sec_WebSocket_Protocol=protocols)
    (logged,) = sample.requests
    assert logged.values("Authorization") == ["Bearer ***"]
    assert logged.values("Cookie") == ["***"]
    assert logged.values("Sec-WebSocket-Protocol") == ["v5.channel.k8s.io, ***"]


async def test_only_the_last_are_kept() -> None:
    async with SampleServer(request_log=2) as server:
        async with connect(server) as client:
            for path in ("/healthz", "/livez", "/readyz"):
                await client.get(path)
        assert [logged.path for logged in server.requests] == ["/livez", "/readyz"]
        assert len(server.requests) == 2
