"""Those who want to know when something has changed."""

from __future__ import annotations

import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Board:
    """Calls each of them. One that fails is logged: renewing goes on for the others."""

    def __init__(self) -> None:
        self._told: dict[object, Callable[[], None]] = {}

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """See `stub.ownership.Ownership.subscribe`."""
        key = object()
        self._told[key] = changed
        return lambda: self._told.pop(key, None) and None

    def tell(self) -> None:
        """Something has changed."""
        for changed in list(self._told.values()):
            try:
                changed()
            except Exception:
                _log.exception("a listener to changes of ownership failed")
