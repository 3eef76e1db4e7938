"""`kulvert serviceaccount`, on the state that a server reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from cli.serviceaccount import serviceaccount
from gateway.membership.registry import Cluster, SqliteRegistry
from gateway.state import State

DECLARED = """\
apiVersion: kulvert.dev/v1alpha1
kind: ManagedServiceAccount
metadata: {name: reader}
spec: {cluster: edge, namespace: ci, holder: argocd/server, file: reader.token, rotation: {validity: 30m}}
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    registry = SqliteRegistry(State(tmp_path / "s").registry)
    registry.add(Cluster("edge"))
    registry.close()
    return tmp_path / "s"


def run(state: Path, *args: str, stdin: str = "") -> Result:
    return CliRunner().invoke(serviceaccount, [*args, "--state-dir", str(state)], input=stdin)


def create(state: Path, *more: str) -> Result:
    return run(state, "create", "edge", "ci/deployer", "--holder", "ada", "--file", "deployer.token", *more)


def test_one_is_wanted_listed_shown_and_deleted(state: Path) -> None:
    assert create(state, "--expiration", "20m", "--audience", "vault").exit_code == 0
    listed = run(state, "list").output.splitlines()
    assert listed[0].split() == ["CLUSTER", "ACCOUNT", "HOLDER", "PLACE", "STATE", "EXPIRES"]
    assert listed[1].split() == ["edge", "ci/deployer", "ada", "deployer.token", "Pending", "-"]
    shown = yaml.safe_load(run(state, "show", "edge", "ci/deployer").output)
    assert shown["spec"]["rotation"] == {"validity": "1200s"}
    assert shown["spec"]["audiences"] == ["vault"]
    assert shown["metadata"]["annotations"]["kulvert.dev/asked-by"].startswith("local")
    assert run(state, "delete", "edge", "ci/deployer").exit_code == 0
    assert "deleting" in run(state, "list").output


def test_they_are_declared_from_a_file_all_or_none(state: Path) -> None:
    other = DECLARED.replace("reader", "writer")
    assert run(state, "apply", "-f", "-", stdin=f"{DECLARED}---\n{other}").exit_code == 0
    assert run(state, "apply", "-f", "-", stdin=DECLARED).exit_code == 0
    output = run(state, "list").output
    assert "system:serviceaccount:argocd:server" in output
    assert len(output.splitlines()) == 3
    third = DECLARED.replace("reader", "third")
    wrong = DECLARED.replace("file:", "files:")
    assert run(state, "apply", "-f", "-", stdin=f"{third}---\n{wrong}").exit_code != 0
    assert "third" not in run(state, "list").output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("create", "edge", "deployer", "--holder", "a", "--file", "f"), "NAMESPACE/NAME"),
        (("create", "other", "ci/d", "--holder", "a", "--file", "f"), "kulvert cluster add other"),
        (("create", "edge", "ci/d", "--holder", "a", "--file", "../f"), "without a directory"),
        (("create", "edge", "ci/d", "--holder", "a", "--file", "f", "--expiration", "30d"), "between 10m and 1d"),
        (("show", "edge", "ci/d"), "no managed service account"),
        (("delete", "edge", "ci/d"), "no managed service account"),
    ],
)
def test_what_cannot_be_done_says_what_to_do(args: tuple[str, ...], words: str, state: Path) -> None:
    result = run(state, *args)
    assert result.exit_code != 0
    assert words in result.output + str(result.exception)
