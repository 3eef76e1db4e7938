"""Where the programs are, or are to be: the cache, or the directory that KUBEBUILDER_ASSETS names."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.testbed import BedError
from tests.testbed.pins import BINARIES, Binary, key


@dataclass(frozen=True)
class Place:
    """A directory that holds all programs once `build` are built and `given` are linked."""

    directory: Path
    given: Path | None
    build: tuple[Binary, ...]

    @property
    def missing(self) -> list[str]:
        """The programs that are not there yet."""
        return [binary.name for binary in BINARIES if not is_program(self.directory / binary.name)]


def cache_root(env: Mapping[str, str]) -> Path:
    """Outside the tree: it outlives a clone, and is shared by all of them."""
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kulvert-testbed"


def is_program(path: Path) -> bool:
    """Whether there is something to run; a broken link is nothing."""
    return path.is_file() and os.access(path, os.X_OK)


def place(env: Mapping[str, str]) -> Place:
    """Decides what is built where; raises BedError when KUBEBUILDER_ASSETS names something useless."""
    assets = env.get("KUBEBUILDER_ASSETS")
    if not assets:
        return Place(cache_root(env) / key(), None, BINARIES)
    return _beside(Path(assets).absolute(), cache_root(env))


def _beside(given: Path, root: Path) -> Place:
    if not given.is_dir():
        raise BedError(f"KUBEBUILDER_ASSETS={given} is not a directory")
    absent = tuple(binary for binary in BINARIES if not is_program(given / binary.name))
    needed = [binary.name for binary in absent if not binary.bring_own]
    if needed:
        raise BedError(f"KUBEBUILDER_ASSETS={given} has no {', '.join(needed)}")
    if not absent:
        return Place(given, None, ())
    names = [binary.name for binary in absent]
    return Place(root / f"{key()}-{_digest(given, names)}", given, absent)


def _digest(given: Path, names: list[str]) -> str:
    return hashlib.sha256(repr((str(given), names)).encode()).hexdigest()[:8]


def locate(env: Mapping[str, str]) -> Path:
    """The directory, if everything in it is there already; raises BedError otherwise. Never builds."""
    found = place(env)
    if found.missing:
        raise BedError(f"the test bed is not built ({', '.join(found.missing)} missing): run `make testbed`")
    return found.directory
