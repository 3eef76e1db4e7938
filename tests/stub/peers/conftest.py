"""A holder with a real agent, and a replica that asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.stub.peers.api import Api
from tests.stub.peers.replicas import Server, authority, two
from tests.support.attached import Stub, attached


@dataclass
class Site:
    """The replica that asks, the holder, the holder's agents' door, and the API server."""

    r: Server
    o: Server
    stub: Stub
    api: Api


@pytest.fixture(scope="session")
def replicas_ca() -> bytes:
    return authority()


@pytest.fixture
async def site(stub: Stub, replicas_ca: bytes) -> AsyncIterator[Site]:
    api = Api()
    async with attached(stub, api), two(stub.sessions.open, replicas_ca) as (r, o):
        yield Site(r, o, stub, api)
