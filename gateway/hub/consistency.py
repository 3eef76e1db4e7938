"""Whether what is known of the hub's objects is what the hub has: key by key, version by version."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.hub.listing import METADATA, Lister
from gateway.hub.memory import identified
from gateway.hub.source import Object


async def differences(lister: Lister, known: Mapping[str, str], moment: str) -> list[str]:
    """The keys, in order, that at `moment` are in one alone, or of another version. `known` is what is known of just
    that moment, and stays so meanwhile. Raises what `Lister.read` raises; Gone: the hub has forgotten that moment.
    """
    missing = dict(known)
    differing: set[str] = set()

    def compare(item: Object) -> None:
        key, version = identified(item)
        if missing.pop(key, None) != version:
            differing.add(key)

    await lister.read(compare, moment, METADATA)
    return sorted(differing | missing.keys())
