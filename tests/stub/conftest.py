"""The stub's tests run on uvloop, as the server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.agent.pki import Authority
from tests.support.attached import Stub, nothing_left


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """pytest-asyncio's hook."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def stub(authority: Authority, tmp_path: Path) -> AsyncIterator[Stub]:
    async with nothing_left(), Stub(authority, tmp_path / "stub") as stub:
        yield stub
