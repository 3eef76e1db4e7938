"""Secret files in a directory of the agent's own: readable by their owner alone, written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from agent.settings import ConfigError

MAX_FILE: Final = 128 * 1024
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def own_directory(path: Path) -> None:
    """Make it (0700), or see that nobody else can put files there. Raises ConfigError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"stateDir, {path}: {error.strerror}") from error
    if stat.S_IMODE(found.st_mode) & _OTHERS_WRITE or found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"stateDir, {path}, can be written by others: name a directory beneath it, which the agent makes for itself"
        )


def read_private(path: Path) -> bytes | None:
    """A file's content, or None where there is none. Raises ConfigError where others could have read or written it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode) & _OTHERS or found.st_uid != os.geteuid():
            raise ConfigError(f"{path} is open to others than the agent: remove it, and the agent asks for a new one")
        data = os.read(descriptor, MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE:
        raise ConfigError(f"{path} is too large to be the agent's: remove it")
    return data


def write_private(path: Path, data: bytes) -> None:
    """Write or replace a file. Raises OSError, and has then changed nothing."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)  # left by a process of this number that died here
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
