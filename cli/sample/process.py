"""One local command: its streams, its exit, its end.

A thread waits for the exit, since neither a child watcher nor a pidfd is there on every loop and system that
the sample runs on.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.sample import sessions
from cli.sample.fds import FdReader, FdWriter

_END_OF_TRANSMISSION = b"\x04"
# The command must own its terminal, which only the child itself can arrange, between fork and exec; a wrapper
# does that without running Python code in a forked copy of a program that has threads. It also undoes an ignored
# SIGINT, which every program that a shell started in the background inherits: Ctrl-C would do nothing.
_OWN_TERMINAL = (
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "[signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)]; "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


@dataclass(frozen=True, slots=True)
class Command:
    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    stdin: bool = False
    tty: bool = False


class Process:
    """`stderr` is None on a terminal, which has one output; `stdin` is None where none was asked for."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        stdin: FdWriter | None,
        stdout: FdReader,
        stderr: FdReader | None,
        *,
        tty: bool,
    ) -> None:
        self.pid = popen.pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._tty = tty
        self._terminal = os.dup(stdout.fileno()) if tty else -1
        self._exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._reap, args=(popen, self._exited.get_loop()), daemon=True).start()

    async def wait(self) -> int:
        """The exit code, a signal n being 128 + n, as a shell counts."""
        return await asyncio.shield(self._exited)

    def kill(self) -> None:
        sessions.kill(self.pid)

    def close(self) -> None:
        """Kill what is left and let go of every descriptor. Safe to call twice."""
        self.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    async def end_input(self) -> None:
        """A terminal has no end of its own: it is typed."""
        if self.stdin is None:
            return
        if self._tty:
            await self.stdin.write(_END_OF_TRANSMISSION)
        else:
            self.stdin.close()

    def resize(self, width: int, height: int) -> None:
        if self._terminal >= 0:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def _reap(self, popen: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        code = popen.wait()
        try:
            loop.call_soon_threadsafe(self._set_exit, code if code >= 0 else 128 - code)
        except RuntimeError:
            return  # the loop is closed, nobody waits any more

    def _set_exit(self, code: int) -> None:
        if not self._exited.done():
            self._exited.set_result(code)


def start(command: Command) -> Process:
    """Start it in a session of its own; OSError if it cannot be."""
    return _on_terminal(command) if command.tty else _on_pipes(command)


def _on_terminal(command: Command) -> Process:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-I", "-S", "-c", _OWN_TERMINAL, *command.argv]
    try:
        popen = _spawn(argv, command, theirs, theirs, theirs)
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    stdin = FdWriter(os.dup(ours)) if command.stdin else None
    return Process(popen, stdin, FdReader(ours), None, tty=True)


def _on_pipes(command: Command) -> Process:
    their_in, our_in = os.pipe() if command.stdin else (os.open(os.devnull, os.O_RDONLY), -1)
    our_out, their_out = os.pipe()
    our_err, their_err = os.pipe()
    try:
        popen = _spawn(command.argv, command, their_in, their_out, their_err)
    except OSError:
        for fd in filter(lambda fd: fd >= 0, (our_in, our_out, our_err)):
            os.close(fd)
        raise
    finally:
        for fd in (their_in, their_out, their_err):
            os.close(fd)
    stdin = FdWriter(our_in) if command.stdin else None
    return Process(popen, stdin, FdReader(our_out), FdReader(our_err), tty=False)


def _spawn(argv: Sequence[str], command: Command, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=command.cwd,
        env=dict(command.env),
        start_new_session=True,
    )
