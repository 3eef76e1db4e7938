"""What `kulvert cluster join` prints is what the chart makes: whoever goes from one to the other changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from gateway.joining.manifest import LABELS, Installation
from tests.charts.cases import Object, case

TOKEN = "kvt_" + "a" * 16 + "." + "A" * 43
CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
SERVERS = ("https://kulvert.example.com:8444",)
JOINED = {
    "kulvert-agent-joined": Installation("edge-7", SERVERS, TOKEN, CA, "kulvert/kulvert:1", constrained=True),
    "kulvert-agent-joined-old": Installation("edge-7", SERVERS, TOKEN, "", "kulvert/kulvert:1", uninstall=False),
}
CHARTS_OWN = {"NetworkPolicy", "PodDisruptionBudget"}
"""By a cluster's network and its drains: the chart has values for them."""


def key(one: Object) -> tuple[str, str, str]:
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]


def bare(one: Any) -> Any:
    """Without what says by which tool and in which version something was made, and with texts of YAML read."""
    if isinstance(one, list):
        return [bare(item) for item in one]
    if not isinstance(one, dict):
        return yaml.safe_load(one) if isinstance(one, str) and "stateDir" in one else one
    return {name: _labels(value) if name in ("labels", "matchLabels") else bare(value) for name, value in one.items()
            if name not in ("annotations", "imagePullPolicy")}  # fmt: skip


def _labels(labels: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name in LABELS}


@pytest.mark.parametrize("name", JOINED)
def test_the_chart_makes_what_the_command_prints(name: str) -> None:
    printed = {key(one): bare(one) for one in JOINED[name].objects() if one["kind"] != "Namespace"}
    charted = {key(one): bare(one) for one in case(name).objects}
    extra = charted.keys() - printed.keys()
    assert {kind for kind, _, _ in extra} == CHARTS_OWN
    for found in (*charted.values(), *printed.values()):
        found["metadata"].get("labels", {}).pop("app.kubernetes.io/managed-by")
        template = found.get("spec", {}).get("template", {})
        template.get("metadata", {}).get("labels", {}).pop("app.kubernetes.io/managed-by", None)
    for one, wanted in printed.items():
        assert charted[one] == wanted, one


def test_an_installation_that_may_take_itself_away_bears_the_label_by_which_the_agent_knows_its_own() -> None:
    name = "app.kubernetes.io/managed-by"
    assert {one["metadata"]["labels"][name] for one in case("kulvert-agent-joined").objects} == {"kulvert"}
    assert {one["metadata"]["labels"][name] for one in case("kulvert-agent-constrained").objects} == {"Helm"}


def test_what_is_printed_is_plain_documents_that_do_not_change_from_one_time_to_the_next() -> None:
    made = JOINED["kulvert-agent-joined"]
    documents = list(yaml.safe_load_all(made.text()))
    assert made.text() == made.text()
    assert len({key(one) for one in documents}) == len(documents)
    assert not any(one["kind"] == "List" or "generateName" in one["metadata"] for one in documents)
    assert not any("creationTimestamp" in one["metadata"] or "status" in one for one in documents)
