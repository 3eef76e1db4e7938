"""Kubernetes' audit Policy: what matches, what is refused, and that memory changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.identity import Identity
from auth.yamlnodes import YamlError
from gateway.audit.events import RESPONSE_COMPLETE, RESPONSE_STARTED
from gateway.audit.policy import AuditPolicy, load_policy, parse_policy
from tunnel.requestinfo import RequestInfo, request_info

HEAD = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
JANE = Identity("jane", ("dev", "system:authenticated"), "", (), "x509", "X509SHA256=1", 9e9)
ROBOT = Identity("robot", (), "", (), "jwt", "JTI=2", 9e9)
STAGES = (RESPONSE_STARTED, RESPONSE_COMPLETE)


def policy(rules: str) -> AuditPolicy:
    return parse_policy(HEAD + rules)


def asked(target: str, method: str = "GET") -> RequestInfo:
    path, _, query = target.partition("?")
    return request_info(method, path.encode(), query.encode())


def recorded(rules: str, target: str, identity: Identity | None = JANE, method: str = "GET") -> list[str]:
    one = policy(rules)
    first = [stage for stage in STAGES if one.wants(stage, identity, asked(target, method))]
    assert first == [stage for stage in STAGES if one.wants(stage, identity, asked(target, method))]
    return first


PODS = "/api/v1/namespaces/a/pods"
MATCHES = [
    ("{}", PODS, True),
    ("{users: [jane]}", PODS, True),
    ("{users: [bob]}", PODS, False),
    ("{userGroups: [ops, dev]}", PODS, True),
    ("{userGroups: [ops]}", PODS, False),
    ("{verbs: [list, watch]}", PODS, True),
    ("{verbs: [get]}", PODS, False),
    ("{namespaces: [a]}", PODS, True),
    ("{namespaces: [b]}", PODS, False),
    ('{namespaces: [""]}', "/api/v1/nodes", True),
    ('{namespaces: [""]}', PODS, False),
    ("{namespaces: [a]}", "/healthz", False),
    ('{resources: [{group: ""}]}', PODS, True),
    ("{resources: [{group: apps}]}", PODS, False),
    ('{resources: [{group: "*", resources: [pods]}]}', PODS, True),
    ("{resources: [{resources: [pods]}]}", PODS + "/p", True),
    ("{resources: [{resources: [pods]}]}", PODS + "/p/log", False),
    ("{resources: [{resources: [pods/log]}]}", PODS + "/p/log", True),
    ('{resources: [{resources: ["pods/*"]}]}', PODS + "/p/log", True),
    ('{resources: [{resources: ["pods/*"]}]}', PODS + "/p", True),
    ('{resources: [{resources: ["*/log"]}]}', PODS + "/p/log", True),
    ('{resources: [{resources: ["*/log"]}]}', PODS + "/p", False),
    ('{resources: [{resources: ["*"]}]}', PODS + "/p/log", True),
    ("{resources: [{resources: [pods], resourceNames: [p]}]}", PODS + "/p", True),
    ("{resources: [{resources: [pods], resourceNames: [p]}]}", PODS + "/q", False),
    ("{nonResourceURLs: [/healthz]}", "/healthz", True),
    ('{nonResourceURLs: ["/health*"]}', "/healthz/etcd", True),
    ('{nonResourceURLs: ["*"]}', "/version", True),
    ('{nonResourceURLs: ["*"]}', PODS, False),
    ("{nonResourceURLs: [/healthz]}", "/healthz/etcd", False),
]


@pytest.mark.parametrize(("selector", "target", "matches"), MATCHES)
def test_a_rule_speaks_of_what_kube_apiserver_takes_it_to(selector: str, target: str, matches: bool) -> None:
    rule = selector.replace("{", "{level: Metadata, ", 1).replace(", }", "}")
    assert bool(recorded(f"rules: [{rule}]", target)) is matches


def test_the_first_rule_that_matches_decides_and_none_records_nothing() -> None:
    rules = "rules:\n- {level: None, users: [robot]}\n- {level: Metadata, verbs: [list]}\n"
    assert recorded(rules, PODS, ROBOT) == []
    assert recorded(rules, PODS) == list(STAGES)
    assert recorded(rules, PODS + "/p") == []


def test_a_stranger_is_in_no_list_of_users() -> None:
    rules = "rules:\n- {level: None, users: [jane]}\n- {level: None, userGroups: [dev]}\n- {level: Metadata}\n"
    assert recorded(rules, PODS, None) == list(STAGES)


def test_stages_are_left_out_by_the_policy_and_by_the_rule() -> None:
    rules = "omitStages: [RequestReceived, ResponseStarted]\nrules: [{level: Metadata}]"
    assert recorded(rules, PODS) == [RESPONSE_COMPLETE]
    rules = "rules: [{level: Metadata, omitStages: [ResponseComplete]}]"
    assert recorded(rules, PODS) == [RESPONSE_STARTED]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("rules: []", ":3: rules: must not be empty"),
        ("rules:\n- level: RequestResponse", ":4: rules[0].level: RequestResponse would record bodies"),
        ("rules:\n- level: Request", ":4: rules[0].level: Request would record bodies"),
        ("rules:\n- level: metadata", "must be None or Metadata"),
        ("rules:\n- users: [a]", "lacks level"),
        ("rules:\n- level: None\n  clusters: [a]", ":5: rules[0].clusters: unknown field"),
        ("rules:\n- {level: None, omitStages: [Started]}", "must be one of"),
        ("rules:\n- {level: None, nonResourceURLs: [healthz]}", "must begin with /"),
        ('rules:\n- {level: None, nonResourceURLs: ["/a*b"]}', "at its end only"),
        ("rules:\n- {level: None, nonResourceURLs: [/a], namespaces: [b]}", "not both"),
        ("rules:\n- {level: None, resources: [{resourceNames: [a]}]}", "names need resources"),
        ("rules:\n- {level: None, resources: [{group: apps/v1}]}", "without a version"),
        ("rules:\n- {level: None, level: Metadata}", "twice"),
        ("rule: []", "unknown field"),
    ],
)
def test_what_is_not_as_documented_is_refused_with_its_line(rules: str, message: str) -> None:
    with pytest.raises(YamlError) as refused:
        policy(rules)
    assert message in str(refused.value)


def test_another_kind_is_refused() -> None:
    with pytest.raises(YamlError, match=r"policy\.yaml:1: apiVersion: must be audit\.k8s\.io/v1"):
        parse_policy("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]", "policy.yaml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match="nothing: cannot be read: No such file"):
        load_policy(tmp_path / "nothing")
    (tmp_path / "large").write_bytes(b"#" * (1 << 21))
    with pytest.raises(YamlError, match="is larger than"):
        load_policy(tmp_path / "large")


TARGETS = st.sampled_from(sorted({target for _, target, _ in MATCHES} | {"/version", "/api/v1/pods?watch=1"}))
RULES = st.lists(
    st.builds(
        lambda selector, level: selector.replace("{", f"{{level: {level}, ", 1).replace(", }", "}"),
        st.sampled_from([selector for selector, _, _ in MATCHES]),
        st.sampled_from(["None", "Metadata"]),
    ),
    min_size=1,
    max_size=5,
)


@given(RULES, st.lists(st.tuples(TARGETS, st.sampled_from([JANE, ROBOT, None])), max_size=12))
def test_memory_changes_nothing(rules: list[str], requests: list[tuple[str, Identity | None]]) -> None:
    text = f"rules: [{', '.join(rules)}]"
    remembering = policy(text)
    for target, identity in requests * 2:
        info = asked(target)
        expected = policy(text).wants(RESPONSE_COMPLETE, identity, info)
        assert remembering.wants(RESPONSE_COMPLETE, identity, info) is expected


def test_memory_tells_objects_apart_where_a_rule_names_one() -> None:
    one = policy("rules: [{level: Metadata, resources: [{resources: [pods], resourceNames: [p]}]}]")
    wanted = [one.wants(RESPONSE_COMPLETE, JANE, asked(f"{PODS}/{name}")) for name in "pqpq"]
    assert wanted == [True, False, True, False]


def test_what_is_remembered_is_bounded() -> None:
    one = policy("rules: [{level: Metadata, resources: [{resources: [pods], resourceNames: [p]}]}]")
    for number in range(1100):
        one.wants(RESPONSE_COMPLETE, JANE, asked(f"{PODS}/p{number}"))
        one.wants(RESPONSE_COMPLETE, Identity("u", (), "", (), "jwt", str(number), 9e9), asked(PODS))
    assert len(one._users) <= 1024
    assert max(len(user.known) for user in one._users.values()) <= 512
