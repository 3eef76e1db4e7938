"""The names that a server has, as agents dial them."""

from __future__ import annotations

from collections.abc import Collection


def named(dialled: str, names: Collection[str]) -> bool:
    """Whether what an agent dialled (`host`, `host:port`, `[v6]:port`) is one of the names; none: everything is."""
    dialled = dialled.lower()
    host = dialled[1:].partition("]")[0] if dialled.startswith("[") else dialled.partition(":")[0]
    return not names or any(_is(name.lower(), host, dialled) for name in names)


def _is(name: str, host: str, dialled: str) -> bool:
    if name.startswith("*."):
        return host.endswith(name[1:]) and not host.startswith(".")
    return name in (host, dialled)
