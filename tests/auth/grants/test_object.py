"""`kind: Grant` objects and all that a spec can say, from YAML and from JSON, strictly."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml

from auth.decision import Impersonable
from auth.grants.access import Access
from auth.grants.grant import Grant, ServiceAccount
from auth.grants.labelselector import LabelSelector, Requirement
from auth.grants.object import read_object, value_of
from auth.grants.resources import ResourcePattern
from auth.grants.spec import grant_fields
from auth.grants.yaml import parse_grants, parse_objects
from auth.impersonation import AsWhom
from auth.yamlnodes import YamlError

WHOLE = """\
apiVersion: kulvert.dev/v1alpha1
kind: Grant
metadata:
  name: dev
  labels: {team: a}
  resourceVersion: "7"
spec:
  subjects:
  - {kind: User, name: ada}
  - {kind: Group, name: dev}
  - {kind: ServiceAccount, namespace: ci, name: deployer}
  - {kind: ServiceAccount, namespace: ci, name: argocd, cluster: edge-7}
  clusters: [edge-*]
  clusterSelector:
    matchLabels: {env: dev}
    matchExpressions:
    - {key: tier, operator: NotIn, values: [gold]}
    - {key: x.io/y, operator: Exists}
  access:
    verbs: [get, list]
    resources: [pods, pods/log, deployments.apps, '*.batch']
    namespaces: [team-*]
    nonResourceURLs: [/metrics, /x/*]
    interactive: [exec]
  impersonate: {userPrefix: 'o:', groupMap: {dev: developers}, dropUnmapped: true}
  allowProtected: [system:masters]
  allowUserImpersonation: {users: [dev-*], groups: [g]}
  passThrough: true
  delegate: true
  expirationTimestamp: 2030-01-31T00:00:00Z
  priority: 5
"""
READ = Grant(
    "dev",
    frozenset({"ada"}),
    frozenset({"dev"}),
    ("edge-*",),
    AsWhom(user_prefix="o:", group_map=(("dev", "developers"),), drop_unmapped=True),
    frozenset({"system:masters"}),
    Impersonable(("dev-*",), ("g",)),
    frozenset({ServiceAccount("ci", "deployer"), ServiceAccount("ci", "argocd", "edge-7")}),
    LabelSelector(
        (
            Requirement("env", "In", frozenset({"dev"})),
            Requirement("tier", "NotIn", frozenset({"gold"})),
            Requirement("x.io/y", "Exists"),
        )
    ),
    Access(
        verbs=frozenset({"get", "list"}),
        resources=(
            ResourcePattern("pods"),
            ResourcePattern("pods", "", "log"),
            ResourcePattern("deployments", "apps"),
            ResourcePattern("*", "batch", beneath=True),
        ),
        namespaces=("team-*",),
        urls=("/metrics", "/x/*"),
        interactive=frozenset({"exec"}),
    ),
    True,
    True,
    1896048000.0,
    5,
)


def test_every_field_is_read_from_yaml_and_from_json() -> None:
    (found,) = parse_objects(WHOLE, "dev.yaml")
    assert found.grant == READ
    assert (found.labels, found.version) == ((("team", "a"),), "7")
    document = json.loads(json.dumps(yaml.safe_load(WHOLE), default=lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ")))
    assert read_object(value_of(document, "the body")) == found


def test_what_is_written_canonically_reads_the_same() -> None:
    spec = grant_fields(READ)
    document = {"apiVersion": "kulvert.dev/v1alpha1", "kind": "Grant", "metadata": {"name": "dev"}, "spec": spec}
    again = read_object(value_of(json.loads(json.dumps(document)), "again")).grant
    assert again == READ
    assert grant_fields(again) == spec


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: Grant\n", "kind: Grants\n", "g.yaml:2: kind: must be Grant"),
        ("name: dev\n", "name: Dev/x\n", "g.yaml:4: metadata.name: must be a name of a-z"),
        ("{team: a}", "{team: a, team: b}", "metadata.labels.team: the field is there twice"),
        ("{team: a}", "{'-': a}", "is no label"),
        ("name: ada", "name: system:serviceaccount:ci:x", "is a service account: write kind: ServiceAccount"),
        ("name: ada}", "name: ada, namespace: x}", "unknown field; it is a ServiceAccount's"),
        ("namespace: ci, name: deployer", "name: deployer", "spec.subjects[2]: lacks namespace"),
        ("namespace: ci, name: argocd", "namespace: ci, name: deployer, cluster: edge-7}\n  - {kind: ServiceAccount,"
         " namespace: ci, name: deployer", "the subject is there twice"),
        ("  passThrough: true\n", "", "that needs passThrough: true"),
        (", cluster: edge-7", "", "the subject is there twice|passThrough: is for subjects"),
        ("operator: NotIn", "operator: Not", "must be one of In, NotIn, Exists, DoesNotExist"),
        ("operator: Exists", "operator: In", "In and NotIn need values"),
        ("operator: NotIn, values: [gold]", "operator: NotIn", "In and NotIn need values"),
        ("key: x.io/y", "key: x/y/z", "is no label's key"),
        ("{env: dev}", "{env: 'a b'}", "is no label's value"),
        ("{env: dev}", "{env: 1}", "must be a non-empty string"),
        ("verbs: [get, list]", "verbs: [use]", "is no verb of a request"),
        ("verbs: [get, list]", "verbs: []", "verbs: must not be empty"),
        ("pods/log", "pods/log/x", "must be RESOURCE[.GROUP][/SUBRESOURCE]"),
        ("[team-*]", "['']", "must be a non-empty string"),
        ("[team-*]", "[Team]", "must be a namespace's name"),
        ("[/metrics, /x/*]", "[metrics]", "must be a path that begins with /"),
        ("[/metrics, /x/*]", "['/*/x']", "a * may stand at its end"),
        ("[exec]", "[shell]", "must be one of attach, console, exec, portforward, proxy"),
        ("verbs: [get, list]", "readOnly: true", "readOnly allows nothing interactive"),
        ("userPrefix: 'o:'", "userPrefix: 'system:'", "begins names that are Kubernetes' own"),
        ("userPrefix: 'o:'", "userPrefix: 'o:', user: x", "contradicts user"),
        ("userPrefix: 'o:'", "groups: [x]", "contradicts groups"),
        ("groupMap: {dev: developers}, ", "", "needs a groupMap"),
        ("{dev: developers}", "{'system:authenticated': developers}", "everybody is in system:authenticated"),
        ("{dev: developers}", '{dev: "a\\nb"}', "cannot be written in a header"),
        ("{users: [dev-*], groups: [g]}", "{groups: [g]}", "lacks users"),
        ("{users: [dev-*], groups: [g]}", "everybody", "must be true or false, or a mapping"),
        ("2030-01-31T00:00:00Z", "2030-01-31", "must be a time such as 2030-01-31T00:00:00Z"),
        ("2030-01-31T00:00:00Z", "2030-02-31T00:00:00Z", "must be a time"),
        ("2030-01-31T00:00:00Z", "2030-01-31T00:00:00", "must be a time"),
        ("2030-01-31T00:00:00Z", "tomorrow", "must be a time"),
        ("priority: 5", "priority: 5.5", "must be a whole number"),
        ("priority: 5", "priority: 0x5", "must be a whole number"),
        ("priority: 5", "delegated: true", "unknown field"),
    ],
)  # fmt: skip
def test_a_typing_error_names_line_and_field(old: str, new: str, message: str) -> None:
    assert old in WHOLE
    with pytest.raises(YamlError) as refused:
        parse_objects(WHOLE.replace(old, new, 1), "g.yaml")
    assert any(one in str(refused.value) for one in message.split("|"))


def spec(**fields: Any) -> Grant:
    base: dict[str, Any] = {"subjects": [{"kind": "User", "name": "a"}], "clusters": ["*"]}
    document = {"apiVersion": "kulvert.dev/v1alpha1", "kind": "Grant", "metadata": {"name": "n"}, "spec": base | fields}
    return read_object(value_of(document, "b")).grant


def test_defaults_and_short_forms() -> None:
    assert spec() == Grant("n", frozenset({"a"}), clusters=("*",))
    assert spec().expires == math.inf
    assert spec(allowUserImpersonation=True).allow_user_impersonation is True
    assert spec(access={"interactive": False}).access == Access(interactive=frozenset())
    assert spec(access={"interactive": True}).access == Access()
    assert spec(impersonate={"groups": []}).impersonate == AsWhom(groups=())
    assert spec(expirationTimestamp="2030-01-31T01:00:00+01:00").expires == READ.expires


@pytest.mark.parametrize(
    "fields",
    [
        {"clusters": []},
        {"clusters": None},
        {"access": {}},
        {"access": None},
        {"access": {"readOnly": 1}},
        {"access": {"readOnly": "true"}},
        {"access": {"verbs": None}},
        {"clusterSelector": {}},
        {"clusterSelector": {"matchLabels": {}}},
        {"impersonate": {}},
        {"delegate": "false"},
        {"delegate": None},
        {"expirationTimestamp": 5},
        {"priority": True},
        {"priority": 10**9},
        {"subjects": [{"kind": "User", "name": ""}]},
        {"access": {"namespaces": [f"n{number}" for number in range(257)]}},
        {"x": 1},
    ],
)
def test_json_is_read_as_strictly(fields: dict[str, Any]) -> None:
    with pytest.raises(YamlError, match=r"^b: spec"):
        spec(**fields)


def test_a_grant_needs_clusters_or_a_selector() -> None:
    with pytest.raises(YamlError, match="names no clusters"):
        parse_grants(
            "apiVersion: kulvert.dev/v1alpha1\nkind: Grants\ngrants: [{name: a, subjects: [{kind: User, name: a}]}]\n"
        )


def test_in_a_list_the_place_is_the_priority() -> None:
    text = (
        "apiVersion: kulvert.dev/v1alpha1\nkind: Grants\ngrants: [{name: a, priority: 1, clusters: [a], subjects: []}]"
    )
    with pytest.raises(YamlError, match="priority: unknown field"):
        parse_grants(text)


def test_documents_beside_each_other_have_names_of_their_own() -> None:
    two = WHOLE + "---\n" + WHOLE.replace("name: dev\n", "name: other\n") + "---\n"
    assert [one.grant.name for one in parse_objects(two, "g.yaml")] == ["dev", "other"]
    with pytest.raises(YamlError, match=r"g.yaml:\d+: a grant named 'dev' is there already"):
        parse_objects(WHOLE + "---\n" + WHOLE, "g.yaml")
    for text in ("", "---\n", "# nothing\n"):
        with pytest.raises(YamlError, match="holds no grants"):
            parse_objects(text, "g.yaml")


def test_nesting_has_an_end() -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    with pytest.raises(YamlError, match="nests deeper"):
        value_of(deep, "b")
