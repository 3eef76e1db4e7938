"""What Python loads before anything else in a process that a test watches from inside: PYTHONPATH names this directory.

- KULVERT_TEST_CLOCK names a file with seconds by which the wall clock of this process is wrong, from now on and when
  the file changes. Steady clocks stay as they are, and so does the clock of OpenSSL.
- KULVERT_TEST_TAP names a file to which each request is written: at a stub when its HEAD is made for an agent of its
  own, at an agent when it was accepted, a line of JSON `[steady time, "sent" or "taken", process, epoch, target]`.
  KULVERT_TEST_NAME is the process's name in it.

The product knows nothing of this.
"""

from __future__ import annotations

import json
import os
import time

_EVERY = 0.05


def _bend_clock(path: str) -> None:
    real, steady = time.time, time.monotonic
    known = [0.0, -1.0]  # offset, when it was read

    def bent() -> float:
        now = steady()
        if now - known[1] > _EVERY:
            known[1] = now
            try:
                with open(path, encoding="ascii") as file:
                    known[0] = float(file.read() or 0)
            except (OSError, ValueError):
                pass
        return real() + known[0]

    time.time = bent


def _tap(path: str, name: str) -> None:
    from tunnel.agentmux import AgentMux
    from tunnel.stubmux import StubMux

    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    steady, begin, opened = time.monotonic, AgentMux._begin, StubMux.open

    def note(what: str, epoch: int, target: bytes) -> None:
        os.write(file, json.dumps([steady(), what, name, epoch, target.decode("latin-1")]).encode() + b"\n")

    def taken(self, exchange, head):  # type: ignore[no-untyped-def]  # the signature of what it stands for
        if type(self) is AgentMux:  # another replica's door is one, too, and no agent
            note("taken", self.epoch, head.target)
        return begin(self, exchange, head)

    def sent(self, head, sink):  # type: ignore[no-untyped-def]  # the signature of what it stands for
        if type(self) is StubMux:
            note("sent", self.epoch, head.target)
        return opened(self, head, sink)

    AgentMux._begin = taken  # type: ignore[method-assign]  # a tap, in a process of a test
    StubMux.open = sent  # type: ignore[method-assign]  # as above


if "KULVERT_TEST_CLOCK" in os.environ:
    _bend_clock(os.environ["KULVERT_TEST_CLOCK"])
if "KULVERT_TEST_TAP" in os.environ:
    _tap(os.environ["KULVERT_TEST_TAP"], os.environ.get("KULVERT_TEST_NAME", ""))
