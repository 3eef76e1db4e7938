"""What a worker is given by its parent: settings that were read once, and descriptors that it inherits."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.audit.settings import AuditSettings
from gateway.config import ServerConfig
from gateway.workers.clienthello import hint
from stub.ownership import Replica


@dataclass(frozen=True, slots=True)
class Boot:
    """`users` are bound sockets of its own (SO_REUSEPORT), `agents` is where connections of agents are passed to it,
    `control` leads to the parent: descriptors. `directory` has the workers' sockets for each other.
    """

    number: int
    count: int
    epoch: int
    parent: int
    config: ServerConfig
    directory: Path
    users: tuple[int, ...]
    agents: int
    control: int
    log_level: str
    log_format: str

    @property
    def identity(self) -> str:
        """Its name among the workers."""
        return name_of(self.number)

    @property
    def workers(self) -> tuple[Replica, ...]:
        """All of them, in the order of their numbers."""
        return tuple(Replica(name_of(one), f"unix:{self.directory}/{one}", hint=hint(one)) for one in range(self.count))

    @property
    def settings(self) -> ServerConfig:
        """The server's, as this worker has them: it has audit logs of its own."""
        return replace(self.config, audit=own_logs(self.config.audit, self.config.state_dir, self.number))

    def to_file(self) -> int:
        """The descriptor of a file without a name, which only those can read who inherit it."""
        descriptor = os.memfd_create("kulvert-worker")
        with os.fdopen(os.dup(descriptor), "wb") as file:
            pickle.dump(self, file)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    @classmethod
    def from_file(cls, descriptor: int) -> Boot:
        """What the parent has written, by the same program."""
        with os.fdopen(descriptor, "rb") as file:
            made = pickle.load(file)  # noqa: S301 -- a file without a name, of the process that has begun this one
        assert isinstance(made, cls)
        return made


def name_of(number: int) -> str:
    """A worker's name: who owns which cluster follows from these."""
    return f"worker-{number}"


def numbers_of(names: Iterable[str]) -> list[int]:
    """The other way round."""
    return [int(name.rpartition("-")[2]) for name in names]


def own_logs(settings: AuditSettings, directory: Path, number: int) -> AuditSettings:
    """The first worker writes the files that are named; each other one its own beside them (`audit.2.log`): a file has
    one writer, or rotation would lose what another one writes to the file that was moved away.
    """
    if number == 0:
        return settings
    paths = settings.log_path or (str(directory / "audit.log"),)
    return replace(settings, log_path=tuple(own_log(path, number) for path in paths))


def own_log(path: str, number: int) -> str:
    """A worker's own file. `none` stays, and so does what is there and is no regular file: a device, a pipe."""
    given = Path(path)
    if number == 0 or path == "none" or (given.exists() and not given.is_file()):
        return path
    return str(given.with_name(f"{given.stem}.{number}{given.suffix}"))
