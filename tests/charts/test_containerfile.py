"""The Containerfile, as far as it can be tried without a container engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.charts.cases import case

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Containerfile").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions(name: str) -> list[str]:
    """The arguments of each instruction of a kind, its lines joined."""
    joined = TEXT.replace("\\\n", " ")
    return [line.partition(" ")[2].strip() for line in joined.splitlines() if line.startswith(f"{name} ")]


def test_what_is_copied_is_there_and_is_all_that_the_wheel_is_made_of() -> None:
    copied = [source for one in instructions("COPY") if "--from" not in one for source in one.split()[:-1]]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml", "requirements.lock"}
    assert set(copied) == {*packages, *files}


def test_nothing_else_is_sent_to_the_builder() -> None:
    lines = [line for line in (ROOT / ".containerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    copied = {source for one in instructions("COPY") if "--from" not in one for source in one.split()[:-1]}
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied


def test_the_program_runs_as_a_user_with_a_number_that_the_charts_know() -> None:
    (user,) = instructions("USER")
    for name in ("kulvert-standby", "kulvert-agent-constrained"):
        context = case(name).of_kind("Deployment")["spec"]["template"]["spec"]["securityContext"]
        assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["kulvert"]


def test_both_bases_can_be_pinned_and_have_a_python_that_the_project_runs_on() -> None:
    bases = dict(one.split("=", 1) for one in instructions("ARG"))
    assert [one.split()[0] for one in instructions("FROM")] == ["${BUILD}", "${BASE}"]
    assert "python:3.11" in bases["BUILD"]
    assert "debian12" in bases["BASE"], "whose Python is 3.11"
    assert PROJECT["project"]["requires-python"] == ">=3.11"


def test_packages_come_by_the_locks_hashes_alone() -> None:
    (download, install) = instructions("RUN")
    assert "--require-hashes" in download
    assert "requirements.lock" in download
    for step in re.findall(r"pip (?:install|wheel) [^&]*", install):
        assert "--no-index" in step or "--no-deps --no-build-isolation" in step, step


@pytest.mark.slow
def test_the_wheel_has_all_that_the_programs_need(tmp_path: Path) -> None:
    """As in the image, with this environment's packages in the place of the lock's: nothing is downloaded here."""
    target, python = tmp_path / "lib", sys.executable
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel: list[str | Path] = [
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        tmp_path,
        ROOT,
    ]
    subprocess.run(wheel, check=True, capture_output=True)
    (made,) = tmp_path.glob("kulvert-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", target, made], check=True)
    others = sysconfig.get_path("purelib")
    env = {"PATH": os.defpath, "HOME": str(tmp_path), "PYTHONPATH": f"{target}:{others}"}
    bare = getattr(sys, "_base_executable", python)  # another than the environment's: it does not know the checkout

    def run(*args: str) -> str:
        command = [bare, target / "bin" / "kulvert", *args]
        return subprocess.run(command, env=env, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert run("version").strip() == PROJECT["project"]["version"]
    for command in ("serve", "agent"):
        assert f"kulvert {command}" in run(command, "--help")
    where = [bare, "-c", "import cli, gateway, agent; print(cli.__file__, gateway.__file__, agent.__file__)"]
    found = subprocess.run(where, env=env, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()
    assert all(path.startswith(str(target)) for path in found)
