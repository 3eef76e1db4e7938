"""`python -m tests.testbed.up`: what `make up` runs, where no test bed has been built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cli.command import environment


def ran(tmp_path: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.testbed.up", *args]
    return subprocess.run(
        command, env=environment(tmp_path) | env, capture_output=True, text=True, timeout=60, check=False
    )


def test_without_a_test_bed_it_says_so_and_is_the_plain_command(tmp_path: Path) -> None:
    done = ran(tmp_path, "--", "--help")
    assert "the sample API server stands in" in done.stderr
    assert "kulvert up" in done.stdout


def test_with_a_kubeconfig_it_is_the_plain_command_in_silence(tmp_path: Path) -> None:
    done = ran(tmp_path, "--", "--kubeconfig", "/nonexistent")
    assert done.returncode == 2
    assert "testbed" not in done.stderr
