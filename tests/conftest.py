"""For all tests: property tests have no deadline (machines are shared), and draw the same examples each time in CI.

KULVERT_HYPOTHESIS=long draws many more."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("kulvert", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.register_profile("long", deadline=None, max_examples=5_000)
settings.load_profile(os.environ.get("KULVERT_HYPOTHESIS", "kulvert"))
