"""Which sessions are recorded: `kulvert.dev/v1alpha1` RecordingPolicy, with the selectors of the audit's policy.

    apiVersion: kulvert.dev/v1alpha1
    kind: RecordingPolicy
    rules:
    - recording: None
      users: [robot]
    - recording: Required
      clusters: [prod-*]
      namespaces: [payments]
      sessions: [Terminal, Command]

The first rule that matches decides; where none does, nothing is recorded. Of what cannot be recorded and gives a hand
inside a container all the same (a node's proxy, a virtual machine's console), nothing is let through where a rule might
require a recording: a node's proxy reaches every namespace, so a rule for one of them speaks of it too.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from auth.grants.patterns import matches
from auth.identity import Identity
from auth.yamlnodes import Value, read_document
from gateway.audit.policy import read_text
from gateway.audit.rules import Selector, read_selector
from tunnel.requestinfo import RequestInfo

API_VERSION: Final = "kulvert.dev/v1alpha1"
KIND: Final = "RecordingPolicy"
_SELECTORS: Final = frozenset({"users", "userGroups", "namespaces", "resources"})
_OPTIONAL: Final = _SELECTORS | {"clusters", "sessions"}


class Recording(enum.Enum):
    """What is to be done."""

    NONE = "None"
    OPTIONAL = "Optional"
    """Recorded; where that fails the session goes on."""
    REQUIRED = "Required"
    """Recorded, or not let through."""


class Session(enum.Enum):
    """What kind of session a rule speaks of."""

    TERMINAL = "Terminal"
    COMMAND = "Command"
    """exec and attach without a terminal: scripts, `kubectl cp`, and `exec -i … sh` by somebody who knows how."""
    OTHER = "Other"
    """What gives a hand inside, and cannot be recorded. No rule names it."""


@dataclass(frozen=True, slots=True)
class RecordingRule:
    """`clusters` are patterns with `*`; none of them: every cluster."""

    recording: Recording
    selector: Selector
    clusters: tuple[str, ...] = ()
    sessions: frozenset[Session] = frozenset({Session.TERMINAL})

    def covers(self, identity: Identity, cluster: str, info: RequestInfo, session: Session) -> bool:
        """Whether this rule decides."""
        if not self.selector.knows(identity):
            return False
        if self.clusters and not any(matches(pattern, cluster) for pattern in self.clusters):
            return False
        if session is not Session.OTHER:
            return session in self.sessions and self.selector.covers(info)
        narrow = bool(self.selector.namespaces or self.selector.resources)
        return self.recording is Recording.REQUIRED or not narrow


class RecordingPolicy:
    """Rules in their order."""

    def __init__(self, rules: tuple[RecordingRule, ...]) -> None:
        self.rules = rules

    def decide(self, identity: Identity, cluster: str, info: RequestInfo, session: Session) -> Recording:
        """What is to be done with a session."""
        for rule in self.rules:
            if rule.covers(identity, cluster, info, session):
                return rule.recording
        return Recording.NONE


def parse_recording_policy(text: str, source: str = "recording policy") -> RecordingPolicy:
    """Reads a policy. :raises YamlError: with file, line and field, for whatever is not exactly as documented."""
    root = read_document(text, source).fields(required=frozenset({"apiVersion", "kind", "rules"}))
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if root[name].text() != expected:
            raise root[name].error(f"must be {expected}")
    return RecordingPolicy(tuple(map(_rule, root["rules"].items())))


def load_recording_policy(path: Path) -> RecordingPolicy:
    """:raises YamlError: the file cannot be read or used; the text says where and why."""
    return parse_recording_policy(read_text(path), str(path))


def _rule(value: Value) -> RecordingRule:
    fields = value.fields(required=frozenset({"recording"}), optional=_OPTIONAL)
    sessions = fields["sessions"].texts(_session) if "sessions" in fields else (Session.TERMINAL.value,)
    if not sessions:
        raise fields["sessions"].error("must not be empty")
    return RecordingRule(
        _recording(fields["recording"]),
        read_selector({name: one for name, one in fields.items() if name in _SELECTORS}),
        fields["clusters"].texts() if "clusters" in fields else (),
        frozenset(map(Session, sessions)),
    )


def _recording(value: Value) -> Recording:
    try:
        return Recording(value.text())
    except ValueError:
        raise value.error("must be None, Optional or Required") from None


def _session(value: Value) -> str:
    if value.text() not in (Session.TERMINAL.value, Session.COMMAND.value):
        raise value.error("must be Terminal or Command")
    return value.text()
