"""One set-up for all logs, in a program of its own, since it is for the whole process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, structlog
from cli import logs
logs.configure({level!r}, {form!r})
structlog.get_logger("kulvert.x").info("attached", cluster="edge")
logging.getLogger("gateway.gateway").warning("a request met a bug", extra={{"audit_id": "7"}})
"""


def logged(level: str, form: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(level=level, form=form)], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_lines_where_nobody_looks_on_from_both_kinds_of_loggers() -> None:
    first, second = map(json.loads, logged("info", "auto"))
    assert (first["event"], first["cluster"], first["level"], first["logger"]) == (
        "attached",
        "edge",
        "info",
        "kulvert.x",
    )
    assert (second["event"], second["audit_id"], second["level"]) == ("a request met a bug", "7", "warning")
    assert first["timestamp"].endswith("Z")


def test_a_level_keeps_less_important_lines_out() -> None:
    assert len(logged("warning", "json")) == 1


def test_a_console_is_for_reading() -> None:
    lines = logged("info", "console")
    assert "attached" in lines[0]
    assert "cluster=edge" in lines[0]


def test_a_library_that_writes_handshakes_down_at_debug_is_never_heard() -> None:
    """websockets shows whole heads and the ends of frames there: tokens, for one."""
    program = """
import logging
from cli import logs
logs.configure("debug", "json")
logging.getLogger("websockets.server").debug("< Authorization: Bearer planted")
logging.getLogger("kulvert.x").debug("heard")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "heard" in done.stderr
    assert "planted" not in done.stderr


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_no_local_variables(form: str) -> None:
    program = f"""
import logging
from cli import logs
logs.configure("info", {form!r})
def failing(token):
    raise ZeroDivisionError("division")
try:
    failing("plan" + "ted")
except ZeroDivisionError as error:
    logging.getLogger("x").error("a bug", exc_info=error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "ZeroDivisionError" in done.stderr
    assert "planted" not in done.stderr
