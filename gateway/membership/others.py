"""Agents that are attached to other processes of the same installation, for whoever does what is done once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tunnel.calls import Params


class Agent(Protocol):
    """An attached agent (`stub.session.Session`, or one of another process)."""

    async def call(self, method: str, params: Params, timeout: float = ...) -> Params:
        """Raises CallFailed."""
        ...


class Others(Protocol):
    """Answers from memory."""

    def agents(self, cluster: str, uid: str) -> Sequence[Agent]:
        """Those of the very cluster that has the name, which take calls; the ready ones first."""
        ...


class NoOthers:
    """There are none."""

    def agents(self, cluster: str, uid: str) -> Sequence[Agent]:
        """See `Others`."""
        return ()
