"""Which sessions a RecordingPolicy has recorded, and what it closes because it cannot be recorded."""

from __future__ import annotations

import pytest

from auth.identity import Identity
from auth.yamlnodes import YamlError
from gateway.recording.policy import Recording, Session, parse_recording_policy
from tunnel.requestinfo import request_info

HEAD = "apiVersion: kulvert.dev/v1alpha1\nkind: RecordingPolicy\nrules:\n"
JANE = Identity("jane", ("dev",), "", (), "x509", "X509SHA256=1", 9e9)
EXEC = b"/api/v1/namespaces/pay/pods/p/exec"
NODE = b"/api/v1/nodes/n/proxy/exec/pay/p/c"


def decided(rules: str, path: bytes = EXEC, cluster: str = "prod-1", session: Session = Session.TERMINAL) -> Recording:
    info = request_info("POST", path, b"")
    return parse_recording_policy(HEAD + rules).decide(JANE, cluster, info, session)


@pytest.mark.parametrize(
    ("rules", "recording"),
    [
        ("- {recording: Required}", Recording.REQUIRED),
        ("- {recording: Optional}", Recording.OPTIONAL),
        ("- {recording: None}\n- {recording: Required}", Recording.NONE),
        ("- {recording: Required, users: [bob]}", Recording.NONE),
        ("- {recording: Required, userGroups: [dev]}", Recording.REQUIRED),
        ("- {recording: Required, clusters: [prod-*]}", Recording.REQUIRED),
        ("- {recording: Required, clusters: [prod]}", Recording.NONE),
        ("- {recording: Required, namespaces: [pay]}", Recording.REQUIRED),
        ("- {recording: Required, namespaces: [other]}", Recording.NONE),
        ("- {recording: Required, resources: [{resources: [pods/exec], resourceNames: [p]}]}", Recording.REQUIRED),
        ("- {recording: Required, resources: [{resources: [pods/attach]}]}", Recording.NONE),
        ("- {recording: Required, sessions: [Command]}", Recording.NONE),
        ("- {recording: Required, sessions: [Command, Terminal]}", Recording.REQUIRED),
    ],
)
def test_the_first_rule_that_matches_decides(rules: str, recording: Recording) -> None:
    assert decided(rules) is recording


def test_a_rule_speaks_of_terminals_alone_unless_it_says_more() -> None:
    assert decided("- {recording: Required}", session=Session.COMMAND) is Recording.NONE
    assert decided("- {recording: Required, sessions: [Command]}", session=Session.COMMAND) is Recording.REQUIRED


@pytest.mark.parametrize(
    ("rules", "recording"),
    [
        ("- {recording: Required, namespaces: [pay]}", Recording.REQUIRED),
        ("- {recording: None, namespaces: [pay]}\n- {recording: Required}", Recording.REQUIRED),
        ("- {recording: None, users: [jane]}\n- {recording: Required}", Recording.NONE),
        ("- {recording: Required, users: [bob]}", Recording.NONE),
        ("- {recording: Required, clusters: [dev]}", Recording.NONE),
    ],
)
def test_a_nodes_proxy_reaches_every_namespace(rules: str, recording: Recording) -> None:
    assert decided(rules, NODE, session=Session.OTHER) is recording


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("- {recording: required}", ":4: rules[0].recording: must be None, Optional or Required"),
        ("- {users: [a]}", "lacks recording"),
        ("- {recording: None, verbs: [get]}", "unknown field"),
        ("- {recording: None, sessions: [Other]}", "must be Terminal or Command"),
        ("- {recording: None, sessions: []}", "must not be empty"),
    ],
)
def test_what_is_not_as_documented_is_refused_with_its_line(rules: str, message: str) -> None:
    with pytest.raises(YamlError) as refused:
        parse_recording_policy(HEAD + rules)
    assert message in str(refused.value)


def test_an_audit_policy_is_no_recording_policy() -> None:
    with pytest.raises(YamlError, match=r"apiVersion: must be kulvert\.dev/v1alpha1"):
        parse_recording_policy("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []")
