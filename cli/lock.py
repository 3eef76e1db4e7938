"""One server to a state directory: a second one would take the first one's epoch, certificate and registry entries."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.failures import Failed


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Held by the process, so that it goes with it, however that ends. :raises Failed: another one has it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"another Kulvert server runs on {directory}: end it, or choose another --state-dir") from None
        yield
    finally:
        os.close(descriptor)
