"""Two releases of Kulvert at once: servers and agents run from this tree or from the previous release's.

KULVERT_PREVIOUS names a checkout of that release. Its own `.venv/bin/kulvert` is run if there is one, otherwise its
code in this environment, which does as long as the releases need the same libraries.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from agent.identityfile import AgentIdentity, new_key
from auth import agentpki
from auth.pki import CertificateAuthority
from gateway.state import State
from tests.support.cluster import Cluster
from tests.support.platform import ADMINS, PROGRAM, Platform
from tests.support.processes import Process

VARIABLE = "KULVERT_PREVIOUS"
ROOT = Path(__file__).parents[2]
DUE = 120.0
"""Seconds that a certificate is still good for, which is dated back by five minutes: its renewal is due at once."""


@dataclass(frozen=True)
class Release:
    """How a release's `kulvert` is run."""

    name: str
    program: tuple[str | Path, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, checkout: Path, name: str = "previous") -> Self:
        """Of a checkout."""
        own = checkout / ".venv" / "bin" / "kulvert"
        if own.exists():
            return cls(name, (own,))
        if not (checkout / "cli" / "main.py").exists():
            raise FileNotFoundError(f"{VARIABLE}: {checkout} is no checkout of Kulvert")
        made = cls(name, (sys.executable, "-P", "-m", "cli.main"), {"PYTHONPATH": str(checkout)})
        made.check(checkout)
        return made

    def check(self, checkout: Path) -> None:
        """That it is this one's code that would be run: otherwise a test of two releases would be one of one."""
        command = [self.program[0], "-P", "-c", "import cli.main; print(cli.main.__file__)"]
        found = subprocess.run(command, env=dict(self.env), capture_output=True, text=True, check=True).stdout.strip()
        if not Path(found).resolve().is_relative_to(checkout.resolve()):
            raise RuntimeError(f"{found} would be run, and not {checkout}")


PRESENT = Release("present", (PROGRAM,))


def previous(env: Mapping[str, str] = os.environ) -> Release | str:
    """The previous release, or why there is none to test with."""
    if env.get(VARIABLE):
        return Release.at(Path(env[VARIABLE]))
    tags = subprocess.run(["git", "tag", "--list", "v*"], cwd=ROOT, capture_output=True, text=True, check=False)
    if newest := tags.stdout.split():
        return f"{VARIABLE} is not set: name a checkout of {newest[-1]}, with an environment of its own (`make env`)"
    return f"there is no release yet; {VARIABLE}=DIRECTORY names a checkout to test with"


class Skewed(Platform):
    """A server of one release, and agents of another; what works on the server's machine is the server's."""

    def __init__(self, directory: Path, server: Release, agents: Release, settings: Mapping[str, Any]) -> None:
        super().__init__(directory, (ADMINS,), settings=settings)
        self.releases = {"server": server, "agents": agents}

    def join_token(self, name: str, *, accept: bool = True) -> str:
        """By the server's own command: this tree's stores would make a later file of its."""
        more = ("--accept",) if accept else ()
        self._command("cluster", "add", name, check=False)  # it may be there
        return self._command("token", "create", name, "--quiet", *more).strip()

    def _command(self, *args: str, check: bool = True) -> str:
        server = self.releases["server"]
        argv = [*map(str, server.program), *args, "--state-dir", str(self.state)]
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.directory), **server.env}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert not (check and done.returncode), done.stderr
        return done.stdout

    async def command(self, *args: str) -> str:
        """On the server's machine; gives what it printed."""
        return await asyncio.to_thread(self._command, *args)

    def _run(self, name: str, *args: str | Path, log: Path | None = None) -> Process:
        before, self._env = self._env, {**self._env, **self._release_of(name).env}
        try:
            return super()._run(name, *args, log=log)
        finally:
            self._env = before

    def _program_of(self, name: str) -> Sequence[str | Path]:
        return self._release_of(name).program

    def _release_of(self, name: str) -> Release:
        return self.releases["server" if name == "server" else "agents"]


async def due_soon(platform: Platform, cluster: Cluster, signer: CertificateAuthority | None = None) -> str:
    """Puts a certificate in the place of a stopped agent's, whose renewal is due at its next start; gives its serial.
    `signer` is the agents' authority, if not the one that signs now.

    The row goes into the file by its columns' names, which all releases have: the others have defaults.
    """
    now, key = time.time(), new_key()
    authority = signer or State(platform.state).agents_authority(now)
    made = agentpki.issue(authority, key.public_key(), cluster.name, cluster.uid, now, DUE)
    identity = AgentIdentity.of(key, made.pem, cluster.name, cluster.uid)
    row = (made.serial, cluster.name, cluster.uid, "due", agentpki.fingerprint(key.public_key()), now, made.expires)
    with closing(sqlite3.connect(platform.state / "clusters.db", timeout=5.0)) as database, database:
        database.execute(
            "INSERT INTO agent_certificate (serial, cluster, cluster_id, agent, fingerprint, issued, expires)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            row,
        )
    path = platform.directory / f"{cluster.name}.agent" / "agent.pem"
    path.write_bytes(identity.pem())
    path.chmod(0o600)
    return made.serial
