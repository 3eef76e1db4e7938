"""Killing all that a command started, not the command alone.

Each command leads a session of its own. An interactive shell moves its jobs to process groups of their own,
so killing its group is not enough where /proc can tell who else is in the session.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_PROC = Path("/proc")
_ROUNDS = 3  # what a process forked while it was being killed is found in the next round


def kill(session: int) -> None:
    _signal_group(session)
    for _ in range(_ROUNDS):
        found = members(session)
        if not found:
            return
        for pid in found:
            _signal(pid)


def members(session: int) -> list[int]:
    """The living processes of a session; none where there is no /proc."""
    if not _PROC.is_dir():
        return []
    return [pid for pid in map(int, filter(str.isdigit, os.listdir(_PROC))) if _belongs(pid, session)]


def _belongs(pid: int, session: int) -> bool:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return False
    state, _ppid, _group, its_session = stat[stat.rindex(b")") + 2 :].split()[:4]
    return int(its_session) == session and state not in (b"Z", b"X")


def _signal_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # macOS says PermissionError for a group of zombies


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
