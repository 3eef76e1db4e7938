"""What a NAT sees of a process: which local ports it has towards a remote one, whatever the process says of itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

ESTABLISHED = "01"
TIME_WAIT = "06"
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def _rows() -> list[list[str]]:
    return [line.split() for table in TABLES for line in Path(table).read_text().splitlines()[1:]]


def _sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(entry.path)
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def open_ports(pid: int, remote: int) -> set[int]:
    """Local ports of a process's sockets towards a remote port, in any state but closed."""
    sockets, wanted = _sockets(pid), f"{remote:04X}"
    return {int(row[1][-4:], 16) for row in _rows() if row[2].endswith(f":{wanted}") and row[9] in sockets}


def waiting_ports(remote: int) -> set[int]:
    """Local ports that wait for stray packets (TIME-WAIT), which are nobody's: a NAT may keep theirs as well."""
    wanted = f"{remote:04X}"
    return {int(row[1][-4:], 16) for row in _rows() if row[2].endswith(f":{wanted}") and row[3] == TIME_WAIT}


@dataclass
class Ports:
    """`most` at a time, and `used` in all."""

    most: int = 0
    used: set[int] = field(default_factory=set)


@asynccontextmanager
async def watched(pid: int, remote: int, every: float = 0.05) -> AsyncIterator[Ports]:
    """Looks again and again while the block runs."""
    ports = Ports()

    async def look() -> None:
        while True:
            found = open_ports(pid, remote)
            ports.most = max(ports.most, len(found))
            ports.used |= found
            await asyncio.sleep(every)

    looking = asyncio.create_task(look())
    try:
        yield ports
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
