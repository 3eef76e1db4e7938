"""For all tests: property tests have no deadline (machines are shared), and draw the same examples each time in CI."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("kulvert", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("kulvert")
