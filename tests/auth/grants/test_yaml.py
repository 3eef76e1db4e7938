"""The grants file as people write it, and what it says about their typing errors."""

from __future__ import annotations

import pytest

from auth.grants.grants import Grant
from auth.grants.yaml import parse_grants
from auth.impersonation import AsWhom
from auth.yamlnodes import YamlError

WHOLE = """\
apiVersion: kulvert.dev/v1alpha1
kind: Grants
grants:
- name: developers
  subjects:
  - {kind: Group, name: dev}
  - {kind: User, name: jane}
  clusters: [prod-*, edge]
  impersonate:
    user: viewer
    groups: [viewers]
  allowProtected: [system:masters]
  allowUserImpersonation: true
- name: admins
  subjects: [{kind: Group, name: "kulvert:admins"}]
  clusters: ["*"]
"""


def test_every_field_is_read() -> None:
    assert parse_grants(WHOLE).grants == (
        Grant(
            "developers",
            frozenset({"jane"}),
            frozenset({"dev"}),
            ("prod-*", "edge"),
            AsWhom("viewer", ("viewers",)),
            frozenset({"system:masters"}),
            True,
        ),
        Grant("admins", frozenset(), frozenset({"kulvert:admins"}), ("*",)),
    )


def test_no_grants_are_written_as_an_empty_list() -> None:
    assert parse_grants("apiVersion: kulvert.dev/v1alpha1\nkind: Grants\ngrants: []\n").grants == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kulvert.dev/v1alpha1", "kulvert.dev/v9", "grants:1: apiVersion: must be kulvert.dev/v1alpha1"),
        ("kind: Grants", "kind: Grant", "grants:2: kind: must be Grants"),
        ("kind: Grants", "kind: Grants\nrules: []", "grants:3: rules: unknown field"),
        ("kind: Grants\n", "", "grants:1: lacks kind"),
        ("- name: admins", "- name: developers", "grants:14: grants[1]: a grant named 'developers' is there already"),
        ("- name: admins\n ", "-", "grants:14: grants[1]: lacks name"),
        ("  allowUserImpersonation: true", "  allowUserImpersonation: yes", "must be true or false"),
        ("  allowUserImpersonation: true", "  allowUserImpersonation: 'true'", "must be true or false"),
        ("allowUserImpersonation", "allowUserImpersonations", "unknown field"),
        ("allowUserImpersonation", "name", "grants:13: grants[0].name: the field is there twice"),
        ("name: jane", "name: no", "grants:7: grants[0].subjects[1].name: must be a non-empty string"),
        ("name: jane", "name: ''", "grants[0].subjects[1].name: must be a non-empty string"),
        ("name: jane", "name: 42", "must be a non-empty string"),
        ("name: jane", "name: [jane]", "must be a non-empty string"),
        ("kind: User", "kind: user", "grants:7: grants[0].subjects[1].kind: must be User, Group or ServiceAccount"),
        ("{kind: User, name: jane}", "{kind: Group, name: dev}", "the subject is there twice"),
        ("{kind: User, name: jane}", "jane", "must be a mapping"),
        ("{kind: User, name: jane}", "{kind: User, name: jane, namespace: x}", "unknown field"),
        ("[prod-*, edge]", "[]", "grants:8: grants[0].clusters: must not be empty"),
        ("[prod-*, edge]", "prod", "must be a list"),
        ("[prod-*, edge]", "[edge, edge]", "grants[0].clusters[1]: 'edge' is there twice"),
        ("[prod-*, edge]", "['prod?']", "must be a cluster's name"),
        ("[prod-*, edge]", "[Prod]", "must be a cluster's name"),
        ("[prod-*, edge]", "['../x']", "must be a cluster's name"),
        ("    user: viewer\n    groups: [viewers]", "    {}", "must name a user"),
        ("user: viewer", 'user: "a\\nb"', "cannot be written in a header"),
        ("[system:masters]", "[everything]", "grants[0].allowProtected[0]: 'everything' is not protected"),
        ("{kind: Group, name: dev}", "&a {kind: Group, name: dev}\n  - *a", "anchors and aliases are not allowed"),
        ("grants:\n", "grants: !!python/object/apply:os.system ['x']\n", "grants:"),
        ("name: developers", "name: [", "grants:"),
    ],
)
def test_a_typing_error_names_line_and_field(old: str, new: str, message: str) -> None:
    assert old in WHOLE
    with pytest.raises(YamlError) as refused:
        parse_grants(WHOLE.replace(old, new, 1))
    assert message in str(refused.value)
