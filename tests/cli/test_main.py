"""Help that teaches, at once; errors of one line that say what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import COMMANDS
from tests.cli.command import PROGRAM, environment, kulvert

HEAVY = ("aiohttp", "cryptography", "rich", "structlog", "uvloop", "yaml", "gateway", "agent", "tunnel")
LOADED = f"import sys, cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"


def test_the_help_begins_with_the_first_look_and_names_every_command() -> None:
    text = kulvert("--help").output
    assert text.index("  up ") < text.index("  serve ")
    for entry in COMMANDS:
        assert f"  {entry.name} " in text
        assert entry.summary in text
    assert "kulvert token create edge-7" in text


def test_the_root_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_completion_offers_commands_without_importing_them(tmp_path: Path) -> None:
    env = environment(tmp_path) | {"_KULVERT_COMPLETE": "bash_complete", "COMP_WORDS": "kulvert k", "COMP_CWORD": "1"}
    done = subprocess.run([PROGRAM], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["plain,kubeconfig"]


def test_help_is_quick(tmp_path: Path) -> None:
    """In seconds of CPU, since the clock of a busy machine says little; the best of three."""
    spent = []
    for _ in range(3):
        before = os.times()
        subprocess.run([PROGRAM, "--help"], env=environment(tmp_path), capture_output=True, check=True)
        after = os.times()
        both = after.children_user - before.children_user + after.children_system - before.children_system
        spent.append(both)
    assert min(spent) < 0.3


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_each_command_explains_itself_with_an_example(entry: object) -> None:
    name = getattr(entry, "name")  # noqa: B009 -- parametrize gives an object
    result = kulvert(name, "--help")
    assert result.exit_code == 0
    assert f"kulvert {name}" in result.output.partition("Options:")[0].partition("\n")[2]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["frob"], "kulvert: No such command 'frob'; `kulvert --help` explains"),
        (["up", "--context", "x"], "kulvert up: --context needs --kubeconfig"),
        (["up", "--port", "x"], "kulvert up: Invalid value for '--port'"),
        (["up", "--kubeconfig", "/nonexistent"], "kulvert up: Invalid value for '--kubeconfig'"),
        (["agent"], "kulvert agent: missing settings: servers, cluster; `kulvert agent --help` explains"),
        (["serve", "--limits-held", "many"], "kulvert serve: --limits-held: 'many' is no positive whole number"),
        (["cluster", "add"], "kulvert cluster add: Missing argument 'NAME'"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(args: list[str], line: str) -> None:
    result = kulvert(*args)
    assert result.exit_code == 2
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1


def test_the_version_is_a_version_and_nothing_else() -> None:
    assert kulvert("version").output.strip().replace(".", "").isdigit()
