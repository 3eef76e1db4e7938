"""How much is under way with the other replicas, in one direction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tunnel.mux import Mux


@dataclass(frozen=True, slots=True)
class Load:
    """Sessions (each is a connection), own links besides, and exchanges under way."""

    sessions: int
    own_links: int
    exchanges: int


def load_of(muxes: Iterable[Mux]) -> Load:
    """Of these sessions."""
    all_ = tuple(muxes)
    return Load(len(all_), sum(len(mux.own_links) for mux in all_), sum(len(mux.exchanges) for mux in all_))
