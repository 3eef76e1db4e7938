"""KEY=VALUE, as options take it."""

from __future__ import annotations

from collections.abc import Iterable

import click


def labels_of(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """`--label KEY=VALUE`, several. :raises click.BadParameter: one is none."""
    return tuple(_label(text) for text in texts)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is no label: write KEY=VALUE", param_hint="--label")
    return key, value
