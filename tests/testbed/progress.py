"""Long commands that say on stderr that they are alive: a silent build looks like one that hangs."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.testbed import BedError

TELL_EVERY = 10.0


def say(message: str) -> None:
    """stderr, because stdout carries the result."""
    print(f"testbed: {message}", file=sys.stderr, flush=True)


def run(label: str, argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str]) -> None:
    """Runs one command to its end; raises BedError with the line that explains a failure."""
    started = time.monotonic()
    say(f"{label} …")
    with tempfile.TemporaryFile() as log:
        process = _start(label, argv, cwd, env, log.fileno())
        try:
            while _still_running(process):
                say(f"{label} … {time.monotonic() - started:.0f} s")
        finally:
            process.kill()  # on Ctrl-C; one that has ended takes no notice
        log.seek(0)
        output = log.read().decode(errors="replace")
    if process.returncode:
        raise BedError(f"{label} failed: {_reason(output, process.returncode)}")
    say(f"{label}: done after {time.monotonic() - started:.0f} s")


def _start(
    label: str, argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str], log: int
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    except OSError as error:
        raise BedError(f"{label} failed: {error}") from error


def _still_running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(TELL_EVERY)
    except subprocess.TimeoutExpired:
        return True
    return False


def _reason(output: str, code: int) -> str:
    lines = [line.strip() for line in output.splitlines()]
    telling = [line for line in lines if line and not line.startswith(("go: downloading", "#", "WARNING"))]
    errors = [line for line in telling if "error" in line.lower()]
    return (errors or telling or [f"exit code {code}"])[0]
