"""How many seeds the simulations run: few, unless KULVERT_SIM_SEEDS asks for more."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def seeds() -> range:
    """The seeds of a simulation. A failure names its own."""
    return range(int(os.environ.get("KULVERT_SIM_SEEDS", "5")))
