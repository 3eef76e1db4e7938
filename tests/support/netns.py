"""Network namespaces for processes of a test, and what happens between them: packets that are late, lost, or cut off.

A namespace lives as long as a process of ours does, so nothing of it outlives the tests. Where none can be made,
`Network.why_not` says why, and everything stays on loopback: the same test then goes without these faults.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.cluster_api import until
from tests.support.processes import Process, stop

ROOT = Path(__file__).parents[2]
Rule = tuple[float, float, float]
"""Loss (0 to 1), delay, jitter (seconds)."""
CUT: Rule = (1.0, 0.0, 0.0)


def why_not() -> str:
    """Why there can be no namespaces here; empty: there can be."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "there is no /dev/net/tun"
    tried = "unshare --net true && ip -V"
    if subprocess.run(["sh", "-c", tried], capture_output=True, check=False).returncode:
        return "a network namespace cannot be made here"
    return ""


class Network:
    """An async context. `here` are names of this process's own namespace, each with an address; each of `others` is a
    namespace. Without namespaces (`plain`) everybody has 127.0.0.1.
    """

    def __init__(self, directory: Path, here: Sequence[str], others: Sequence[str], *, plain: bool) -> None:
        self.plain = plain
        self._directory = directory
        self._here = tuple(here)
        self._others = tuple(others)
        self._number = {name: number for number, name in enumerate((*here, *others), 1)}
        self._subnet = f"198.{18 + os.getpid() // 256 % 2}.{os.getpid() % 256}"  # RFC 2544: for tests of networks
        self._rules = directory / "network.json"
        self._kept: dict[str, Process] = {}
        self._switch: Process | None = None
        self._now: dict[str, Rule] = {}
        self._changes = 0

    async def __aenter__(self) -> Self:
        if not self.plain:
            try:
                await self._start()
            except BaseException:
                await self._stop()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _start(self) -> None:
        env = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(ROOT)}
        for name in self._others:
            command = ["unshare", "--net", "sh", "-c", "echo there; exec sleep infinity"]
            self._kept[name] = Process(f"namespace {name}", command, self._directory / f"{name}.netns.log", env)
        await until(self._all_there, "the namespaces", 10.0)
        self._write()
        members = ["+".join(self._here), *(f"{name}={kept.pid}" for name, kept in self._kept.items())]
        command = [sys.executable, "-m", "tests.support.netswitch", self._subnet, str(self._rules), *members]
        self._switch = Process("switch", command, self._directory / "switch.log", env)
        await until(self._switching, "the network", 15.0)

    async def _all_there(self) -> bool:
        return all("there" in kept.log.read_text() for kept in self._kept.values())

    async def _switching(self) -> bool:
        assert self._switch is not None
        assert self._switch.exited is None, self._switch.tail()
        return "ready: " in self._switch.log.read_text()

    async def _stop(self) -> None:
        await stop([one for one in (self._switch, *self._kept.values()) if one is not None], 0.5)

    # --- who is where

    def address(self, name: str) -> str:
        """Its IPv4 address."""
        return "127.0.0.1" if self.plain else f"{self._subnet}.{self._number[name]}"

    def inside(self, name: str) -> list[str]:
        """What a command begins with that is to run there."""
        return [] if self.plain or name in self._here else ["nsenter", f"--net=/proc/{self._kept[name].pid}/ns/net"]

    # --- what happens between them

    def impair(self, a: Iterable[str], b: Iterable[str], rule: Rule, *, back: bool = True) -> None:
        """From now on, packets from each of `a` to each of `b` fare so, and with `back` the other way, too."""
        others = list(b)
        for one in a:
            for other in others:
                if one != other:
                    self._now[f"{one}>{other}"] = rule
                    self._now |= {f"{other}>{one}": rule} if back else {}
        self._write()

    def heal(self) -> None:
        """All is well again."""
        self._now.clear()
        self._write()

    def _write(self) -> None:
        if self.plain:
            return
        self._changes += 1
        draft = self._rules.with_suffix(".new")
        draft.write_text(json.dumps(self._now | {"seed": self._changes}))
        draft.replace(self._rules)

    async def settled(self) -> None:
        """What was impaired or healed last is in force."""
        await asyncio.sleep(0.05)
