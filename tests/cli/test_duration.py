"""Spans of time."""

from __future__ import annotations

import click
import pytest

from cli.duration import seconds, spoken


@pytest.mark.parametrize(("text", "span"), [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800)])
def test_a_span_is_read_and_spoken(text: str, span: float) -> None:
    assert seconds(text) == span
    assert seconds(spoken(span)) == span


@pytest.mark.parametrize("text", ["", "0s", "7", "d", "-1d", "1.5h", "9999d", "1h30m"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write 30m, 12h or 7d"):
        seconds(text)
