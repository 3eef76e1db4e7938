"""Which objects of the hub are meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]
"""An object as JSON has it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A collection, e.g. /apis/coordination.k8s.io/v1/namespaces/NS/leases, or a selected part of one."""

    path: str
    label_selector: str = ""
    field_selector: str = ""

    @property
    def query(self) -> dict[str, str]:
        """The selectors as parameters, which lists and watches share."""
        both = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {name: value for name, value in both.items() if value}
