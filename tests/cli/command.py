"""The command as its users meet it: in this process for what is quick, as a real program for what runs on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

from cli.main import main

PROGRAM = Path(sys.executable).parent / "kulvert"


def kulvert(*args: str | Path, env: Mapping[str, str] | None = None) -> Result:
    """Runs a command that ends by itself."""
    return CliRunner().invoke(main, [str(arg) for arg in args], env=dict(env or {}), prog_name="kulvert")


def environment(home: Path) -> dict[str, str]:
    """Nothing of this process's own settings; temporary files where the test can count them."""
    (home / "tmp").mkdir(exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONWARNINGS": "error"}


class Program:
    """A running `kulvert`, whose output is in a file."""

    def __init__(self, argv: Sequence[str | Path], home: Path) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `close`
        self.process = subprocess.Popen(
            [str(PROGRAM), *map(str, argv)],
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        """All that it has said."""
        return os.pread(self._output.fileno(), 1 << 20, 0).decode()

    def until(self, line: str, seconds: float = 30) -> str:
        """Waits until a line begins like this; gives the line."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for said in self.output.splitlines():
                if said.startswith(line):
                    return said
            assert self.process.poll() is None, self.output
            time.sleep(0.05)
        raise AssertionError(f"no line {line!r}:\n{self.output}")

    def stop(self, number: signal.Signals = signal.SIGINT, seconds: float = 20) -> int:
        """Sends a signal; gives the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def close(self) -> None:
        """Ends it, however it is."""
        self.process.kill()
        self.process.wait()
        self._output.close()


@contextmanager
def running(*argv: str | Path, home: Path) -> Iterator[Program]:
    """A `kulvert` for the length of a block."""
    program = Program(argv, home)
    try:
        yield program
    finally:
        program.close()


def processes_of_session(leader: int) -> set[int]:
    """Who is alive in a session, or has a parent in it; a demo pod's shell leads a session of its own."""
    found, members = _processes(), {leader}
    while True:
        more = {pid for pid, (parent, session) in found.items() if session in members or parent in members}
        if more <= members:
            return {pid for pid in members if pid in found}
        members |= more


def _processes() -> dict[int, tuple[int, int]]:
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if state not in "ZX":
            found[int(stat.parent.name)] = (int(parent), int(session))
    return found
