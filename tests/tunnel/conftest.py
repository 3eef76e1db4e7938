"""The simulations' seeds: few, unless KULVERT_SIM_SEEDS asks for more. The loops of tests with sockets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def seeds() -> range:
    """The seeds of a simulation. A failure names its own."""
    return range(int(os.environ.get("KULVERT_SIM_SEEDS", "5")))


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run it on one of the loops, in 20 s."""

    def go(test: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(test, 20))

    return go
