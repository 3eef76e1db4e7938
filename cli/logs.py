"""Logs, set up in one place: for people on a terminal, JSON lines otherwise. To stderr; stdout is for results."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
import structlog
from structlog.typing import Processor

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "console", "json")
F = TypeVar("F", bound=Callable[..., Any])


def options(level: str) -> Callable[[F], F]:
    """`--log-level` and `--log-format`, with a default level that suits the command."""
    choose_level = click.option(
        "--log-level",
        type=click.Choice(LEVELS),
        default=level,
        envvar="KULVERT_LOG_LEVEL",
        show_envvar=True,
        help="What is logged, to stderr.",
    )
    choose_format = click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        default="auto",
        envvar="KULVERT_LOG_FORMAT",
        show_envvar=True,
        help="auto: console on a terminal, JSON lines otherwise.",
    )
    return lambda command: choose_level(choose_format(command))


def configure(level: str, form: str) -> None:
    """Set up structlog and the standard library's logging, whose records take the same way."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared = _shared()
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(console)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # At debug they write down whole handshakes and the ends of frames, and every answer of the hub's: a TokenReview has
    # its user's token in it. Of links, and of the hub, we tell ourselves.
    for name in ("websockets", "kubernetes_asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _rendering(console: bool) -> list[Processor]:
    first: Processor = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if console:
        # Its default, where rich is installed, shows the local variables of each frame: tokens, for one.
        plain = structlog.dev.plain_traceback
        return [first, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    return [first, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
