"""One sample for each test, and a client that speaks to it as somebody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cli.sample import Caller, SampleServer
from tests.cli.sample.client import Client, connect

ROOT_TOKEN = "a-token-of-an-administrator"


@pytest.fixture
async def sample() -> AsyncIterator[SampleServer]:
    root = Caller("root", ("system:masters", "system:authenticated"))
    async with SampleServer(log_interval=0.05, history=20, callers={ROOT_TOKEN: root}) as server:
        yield server


@pytest.fixture
async def client(sample: SampleServer) -> AsyncIterator[Client]:
    async with connect(sample) as client:
        yield client


@pytest.fixture
def kubeconfig(sample: SampleServer, tmp_path: Path) -> Path:
    return sample.kubeconfig(tmp_path / "kubeconfig")
