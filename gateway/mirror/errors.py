"""What whoever waits for the mirror may hear."""

from __future__ import annotations


class MirrorUnavailable(Exception):
    """What was written here is not at the hub (yet): do not say that it is done. The text says why."""


class MirrorConflict(MirrorUnavailable):
    """Another replica has changed the same meanwhile, and what was written here does not count: do it again."""
