"""Quantities are read as the API server reads them, and written as kubelets write them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.quantity import quantity, shown_bytes, shown_count, shown_cpu


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", "4"), ("3920m", "3.92"), ("1.5", "1.5"), (".5", "0.5"), ("2.", "2"), ("16384Ki", "16777216"),
        ("1Gi", "1073741824"), ("1G", "1000000000"), ("1e3", "1000"), ("2E3", "2000"), ("1E", "1000000000000000000"),
        ("12e-1", "1.2"), ("5n", "0.000000005"), ("+1", "1"), ("110", "110"),
    ],
)  # fmt: skip
def test_a_quantity_has_its_value(text: str, value: str) -> None:
    assert quantity(text) == Decimal(value)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1ki", "1 Gi", "1Gib", "NaN", "Infinity", "1e999", "9" * 40, None, 4, "1\n"]
)
def test_what_is_no_quantity_is_none(text: object) -> None:
    assert quantity(text) is None


@given(st.integers(0, 10**9))
def test_what_is_shown_is_what_it_was(milli: int) -> None:
    assert quantity(shown_cpu(Decimal(milli) / 1000)) == Decimal(milli) / 1000
    assert quantity(shown_bytes(Decimal(milli))) == milli
    assert quantity(shown_count(Decimal(milli))) == milli
    assert shown_bytes(Decimal(3 * 1024)) == "3Ki"
