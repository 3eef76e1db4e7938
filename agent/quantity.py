"""Kubernetes quantities, read exactly and summed: cpu, memory, pods.

Source: kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_NUMBER: Final = r"([+-]?[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})"
_QUANTITY: Final = re.compile(_NUMBER + r"([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?")
_POWERS: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL: Final = {suffix: Decimal(10) ** power for suffix, power in _POWERS.items()}
_BINARY: Final = {f"{letter}i": Decimal(1024) ** (power + 1) for power, letter in enumerate("KMGTPE")}
KI: Final = 1024


def quantity(text: object) -> Decimal | None:
    """Its value, or None where it is no quantity, or a negative one."""
    found = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    number, suffix = Decimal(found[1]), found[2] or ""
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        value = number.scaleb(int(suffix[1:]))
    else:
        value = number * (_BINARY.get(suffix) or _DECIMAL.get(suffix) or 1)
    return value if value >= 0 else None


def shown_cpu(cores: Decimal) -> str:
    """Whole cores, or thousandths of one."""
    milli = int((cores * 1000).to_integral_value())
    return f"{milli}m" if milli % 1000 else str(milli // 1000)


def shown_bytes(size: Decimal) -> str:
    """In Ki, as kubelets report it; what is no whole number of them in bytes."""
    whole = int(size)
    return f"{whole // KI}Ki" if whole and whole % KI == 0 else str(whole)


def shown_count(count: Decimal) -> str:
    """A whole number."""
    return str(int(count))
