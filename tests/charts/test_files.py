"""What belongs together in the charts' files agrees: values, schema, README, versions, and the loose manifests."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.cases import CASES, CHARTS, NAMES, Object, case
from tests.charts.readme import leaves, renewed

ROOT = Path(__file__).parents[2]
CHARTS_MARKS = ("labels", "annotations")


def loose(*parts: str) -> list[Object]:
    return list(yaml.safe_load_all(CHARTS.joinpath(*parts).read_text()))


def unmarked(one: Object) -> Object:
    metadata = {name: value for name, value in one["metadata"].items() if name not in CHARTS_MARKS}
    return one | {"metadata": metadata}


@pytest.mark.parametrize("chart", NAMES)
def test_the_table_of_values_is_that_of_the_values(chart: str) -> None:
    path, wanted = renewed(chart)
    assert path.read_text() == wanted, "python -m tests.charts.renew"


@pytest.mark.parametrize("chart", NAMES)
def test_every_value_has_a_schema_that_says_what_it_is_and_no_other_is_taken(chart: str) -> None:
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
    values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    assert set(schema["properties"]) == {*values, "global"}
    assert all(len(found["description"]) > 5 for _, _, found in leaves(chart))
    assert _open(schema, "") == [], "additionalProperties must be false where there are properties"


def _open(schema: dict[str, Any], path: str) -> list[str]:
    found = []
    for name, known in schema.get("properties", {}).items():
        found += _open(known, f"{path}.{name}")
    if schema.get("properties") and schema.get("additionalProperties", True) is not False:
        found.append(path)
    return found


@pytest.mark.parametrize("chart", NAMES)
def test_the_chart_is_of_the_programs_version(chart: str) -> None:
    told = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (told["apiVersion"], told["name"], told["version"], told["appVersion"]) == ("v2", chart, version, version)


def test_every_case_is_a_file_and_every_file_a_case() -> None:
    here = Path(__file__).parent
    for kind in ("cases", "golden"):
        assert {path.stem for path in (here / kind).iterdir()} == {one.name for one in CASES}


def test_the_crd_of_grants_is_the_one_that_helm_installs() -> None:
    assert loose("crds", "grants.kulvert.dev.yaml") == loose("kulvert", "crds", "grants.kulvert.dev.yaml")
    assert [path.name for path in (CHARTS / "kulvert" / "crds").iterdir()] == ["grants.kulvert.dev.yaml"]


def test_the_admission_policy_and_the_managedclusters_are_those_of_the_loose_files() -> None:
    charted = {(one["kind"], one["metadata"]["name"]): unmarked(one) for one in case("kulvert-everything").objects}
    for one in (*loose("crds", "grants-delegation.yaml"), *loose("crds-without-ocm", "managedclusters.yaml")):
        assert charted[one["kind"], one["metadata"]["name"]] == unmarked(one)
    kinds = {one["kind"] for one in case("kulvert-standby").objects}
    assert "ValidatingAdmissionPolicyBinding" in kinds
    assert "CustomResourceDefinition" not in kinds, "when Helm only renders, it cannot know whether there is one"


def test_the_optional_roles_of_an_agent_are_those_of_the_loose_files() -> None:
    charted = {one["metadata"]["name"]: one for one in case("kulvert-agent-everything").objects
               if one["kind"] == "ClusterRole"}  # fmt: skip
    for part in ("serviceaccounts", "status"):
        role = loose(f"agent-{part}-rbac.yaml")[0]
        assert charted[role["metadata"]["name"]]["rules"] == role["rules"]


def test_the_server_may_do_in_the_hub_what_the_loose_files_let_it() -> None:
    charted = [rule for one in case("kulvert-everything").objects if one["kind"] in ("ClusterRole", "Role")
               for rule in one["rules"]]  # fmt: skip
    parts = ("rbac", "join-rbac", "secrets-rbac", "clusters-rbac")
    files = [f"server-hub-{part}.yaml" for part in parts]
    wanted = [rule for file in files for one in loose(file) if one["kind"] in ("ClusterRole", "Role")
              for rule in one["rules"]]  # fmt: skip
    for rule in wanted:
        assert any(_covers(other, rule) for other in charted), rule


def _covers(charted: dict[str, Any], rule: dict[str, Any]) -> bool:
    names = ("apiGroups", "resources", "nonResourceURLs", "verbs")
    same = charted.get("resourceNames") == rule.get("resourceNames") or "resourceNames" not in charted
    return same and all(set(rule.get(one, ())) <= set(charted.get(one, ())) for one in names)
