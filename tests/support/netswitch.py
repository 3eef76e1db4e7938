"""A network of several namespaces, whose packets pass through this process: some of them late, some of them never.

`python -m tests.support.netswitch SUBNET RULES NAME[=PID]…`: one tap device for each NAME, in the network namespace of
process PID (without one: in this process's own). It stands in for a bridge and `tc netem`, which is a kernel module
that not every kernel has. Members are known by the last byte of their IPv4 addresses: the first NAME has .1, and so on;
where a NAME reads A+B, the device has both addresses.

RULES is a file of JSON, `{"A>B": [loss, delay, jitter]}`, read again when it changes: of packets from A to B, `loss`
(0 to 1) are dropped, and the others are delayed by `delay` ± `jitter` seconds. What is lost is chosen by chance from a
seed, `"seed"` in the same file. ARP always passes.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_TUNSETIFF = 0x400454CA
_TAP, _NO_PI = 0x0002, 0x1000
_MTU_FRAME = 65_536
_LOOK = 0.02
_IPV4 = b"\x08\x00"
Rule = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Member:
    """A tap device. `first` is the number of its first address; it has as many as names."""

    names: tuple[str, ...]
    pid: int
    first: int
    device: str
    file: int

    @property
    def mac(self) -> bytes:
        """Locally administered, and told apart by its last byte."""
        return bytes((0x02, 0x4B, 0x56, 0, 0, self.first))

    def set_up(self, subnet: str) -> None:
        """Move the device to its namespace, and give it its addresses."""
        inside = ["nsenter", f"--net=/proc/{self.pid}/ns/net"] if self.pid else []
        if self.pid:
            _run(["ip", "link", "set", self.device, "netns", str(self.pid)])
            _run([*inside, "ip", "link", "set", "lo", "up"])
        _run([*inside, "ip", "link", "set", self.device, "address", self.mac.hex(":"), "mtu", "1500"])
        for number in range(self.first, self.first + len(self.names)):
            _run([*inside, "ip", "address", "add", f"{subnet}.{number}/24", "dev", self.device])
        _run([*inside, "ip", "link", "set", self.device, "up"])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.decode().strip()}")


def _tap(device: str) -> int:
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _TAP | _NO_PI))
    return file


class Switch:
    """Passes frames on."""

    def __init__(self, members: list[Member], rules: Path) -> None:
        self._members = members
        self._by_mac = {member.mac: member for member in members}
        self._path = rules
        self._seen = 0
        self._rules: dict[tuple[int, int], Rule] = {}
        self._random = random.Random(0)
        names = [name for member in members for name in member.names]
        self._numbers = {name: number for number, name in enumerate(names, 1)}
        self._last: dict[tuple[int, int], float] = {}

    async def run(self) -> None:
        """Until it is killed."""
        loop = asyncio.get_running_loop()
        for member in self._members:
            loop.add_reader(member.file, self._readable, member)
        while True:
            self._look()
            await asyncio.sleep(_LOOK)

    def _look(self) -> None:
        changed = self._path.stat().st_mtime_ns
        if changed == self._seen:
            return
        self._seen = changed
        told = json.loads(self._path.read_text())
        self._random.seed(told.pop("seed", 0))
        self._rules = {}
        for pair, rule in told.items():
            a, _, b = pair.partition(">")
            self._rules[self._numbers[a], self._numbers[b]] = (rule[0], rule[1], rule[2])

    def _readable(self, member: Member) -> None:
        for _ in range(64):
            try:
                frame = os.read(member.file, _MTU_FRAME)
            except BlockingIOError:
                return
            except OSError:  # the namespace is about to end
                asyncio.get_running_loop().remove_reader(member.file)
                return
            self._take(member, frame)

    def _take(self, source: Member, frame: bytes) -> None:
        rule = self._rules.get((frame[29], frame[33])) if self._rules and frame[12:14] == _IPV4 else None
        if rule is None:
            self._pass(source, frame)
            return
        loss, delay, jitter = rule
        if self._random.random() < loss:
            return
        if not delay:
            self._pass(source, frame)
            return
        loop, pair = asyncio.get_running_loop(), (frame[29], frame[33])
        at = max(loop.time() + delay + jitter * (2 * self._random.random() - 1), self._last.get(pair, 0.0))
        self._last[pair] = at  # in order, as one path keeps it
        loop.call_at(at, self._pass, source, frame)

    def _pass(self, source: Member, frame: bytes) -> None:
        target = self._by_mac.get(frame[:6])
        for member in (target,) if target is not None else self._members:
            if member is not source:
                try:
                    os.write(member.file, frame)
                except OSError:  # a full queue drops it, as any network does
                    continue


def main() -> None:
    """See the module."""
    subnet, rules, *named = sys.argv[1:]
    members, first = [], 1
    for text in named:
        names, _, pid = text.partition("=")
        device = f"kv{os.getpid() % 1_000_000:x}-{first}"
        members.append(Member(tuple(names.split("+")), int(pid or 0), first, device, _tap(device)))
        first += len(members[-1].names)
    for member in members:
        member.set_up(subnet)
    print("ready: the network is there", flush=True)
    asyncio.run(Switch(members, Path(rules)).run())


if __name__ == "__main__":
    main()
