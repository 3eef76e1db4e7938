"""Spans of time as people write them: 90s, 30m, 12h, 7d."""

from __future__ import annotations

import re

import click

MOST = 3_650 * 86_400.0
_FORM = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str) -> float:
    """An option's value, for click's `type=`."""
    match = _FORM.fullmatch(text)
    found = int(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0.0 < found <= MOST:
        raise click.BadParameter(f"{text!r} is no span of time up to {spoken(MOST)}: write 30m, 12h or 7d")
    return found


def spoken(span: float) -> str:
    """A span for people, in its largest whole unit."""
    for unit in ("d", "h", "m"):
        if span >= _SECONDS[unit] and span % _SECONDS[unit] == 0:
            return f"{span / _SECONDS[unit]:.0f}{unit}"
    return f"{span:.0f}s"
