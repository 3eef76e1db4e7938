"""A removed authority on real sockets and the server's own event loop: nobody of it gets in, or stays."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from pathlib import Path

import pytest
import uvloop

from auth.chain import AuthenticatorChain
from auth.grants.grants import Decisions
from gateway.audit.log import AuditIds, AuditLog
from gateway.audit.trail import AuditTrail
from gateway.certificates import Certificates
from gateway.config import TlsConfig
from gateway.gateway import Gateway, GatewayParts
from gateway.listener import listening_socket
from tests.gateway.gate import GRANTS, Names
from tests.gateway.test_clienttrust import NOW, Bed
from tests.gateway.wire import FakeClusters
from tunnel.batch import Batch

ASK = b"GET /version HTTP/1.1\r\nHost: gateway\r\n\r\n"


async def status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(ASK)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return head[9:12]


def test_a_removed_authoritys_users_are_refused_on_new_and_on_open_connections(tmp_path: Path) -> None:
    bed = Bed(tmp_path)

    async def main() -> None:
        trust = bed.trust()
        certificates = Certificates(TlsConfig(), ("127.0.0.1",), bed.state, NOW, trust)
        chain = AuthenticatorChain([trust], ttl=20.0)
        loop = asyncio.get_running_loop()
        parts = GatewayParts(
            clusters=FakeClusters(),
            registry=Names(["a"]),
            authenticator=chain,
            grants=Decisions(GRANTS),
            audit=AuditTrail(AuditLog(None, loop.call_soon), AuditIds(os.urandom), time.time),
            batch=Batch(loop.call_soon),
            sockets=(listening_socket("127.0.0.1", 0),),
            tls=certificates.users,
            clock=time.monotonic,
            wall=time.time,
            version="0.0.0",
        )
        async with Gateway(parts) as gateway:
            port = gateway.ports[0]
            one, two = bed.client(bed.one, certificates), bed.client(bed.two, certificates)
            open_one = await asyncio.open_connection("127.0.0.1", port, ssl=one)
            assert await status(*open_one) == b"200"
            bed.put(bed.two)
            assert trust.take(trust.look())
            assert certificates.poll(NOW)
            chain.clear()
            assert await status(*open_one) == b"401"
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):  # noqa: PT012
                refused = await asyncio.open_connection("127.0.0.1", port, ssl=one)
                await status(*refused)  # TLS 1.3 tells the client after its own part
            open_two = await asyncio.open_connection("127.0.0.1", port, ssl=two)
            assert await status(*open_two) == b"200"
            for _, writer in (open_one, open_two):
                writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
