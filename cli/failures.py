"""Which exceptions are the user's to mend, and the one line that each becomes. All else is a bug, and shows itself."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

_EXPECTED = (
    "auth.watchedfile:FileError",
    "auth.jointoken:JoinTokenInvalid",
    "auth.statefile:StateFileError",
    "auth.yamlnodes:YamlError",
    "gateway.membership.conditions:ConditionError",
    "gateway.config:ConfigError",
    "gateway.hub.client:HubError",
    "gateway.joining.install:JoinFailed",
    "gateway.membership.registry:RegistryError",
    "tunnel.errors:TunnelError",
)
"""Each says by itself what to do. A module that was not imported has raised nothing, so none is imported here."""


class Failed(Exception):
    """A command cannot go on. The text is one line: what is wrong, and what to do about it."""


def explained(error: BaseException) -> str | None:
    """The line for the user, or None for a bug."""
    if isinstance(error, BaseExceptionGroup):
        return _of_group(error)
    if isinstance(error, (Failed, *_expected())):
        return str(error)
    if isinstance(error, OSError):
        return _of_system(error)
    return None


def _expected() -> Iterator[type[Exception]]:
    for name in _EXPECTED:
        module, _, attribute = name.partition(":")
        if module in sys.modules:
            yield getattr(importlib.import_module(module), attribute)


def _of_group(group: BaseExceptionGroup[BaseException]) -> str | None:
    """What a task group holds is one failure for its user, unless a bug is among it."""
    lines = [explained(error) for error in group.exceptions]
    known = [line for line in lines if line is not None]
    return "; ".join(dict.fromkeys(known)) if len(known) == len(lines) else None


def _of_system(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename else reason
