"""Strict reading of YAML: nothing that can be fed to it does more than be refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.grants.yaml import parse_grants
from auth.yamlnodes import YamlError, read_document


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f:1: the file is empty"),
        ("# nothing\n", "f:1: the file is empty"),
        ("a: 1\n---\nb: 2\n", "f:2:"),
        ("a:\n\t- x\n", "f:2:"),
        ("a: b: c", "f:1:"),
        ("a: \0", "f:1:"),
        ("[" * 20_000, "f:1: nests deeper"),
        ("[" * 200_000 + "]" * 200_000, "f:1: nests deeper"),
        ("- " * 200_000 + "x", "f:1: nests deeper"),
    ],
)
def test_what_is_not_one_document_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(YamlError) as refused:
        read_document(text, "f")
    assert message in str(refused.value)


def test_aliases_cannot_multiply() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*{'a' if n == 0 else f'b{n - 1}'}, *a]\n" for n in range(30))
    with pytest.raises(YamlError):
        parse_grants(bomb)


def test_a_merge_key_is_an_unknown_field() -> None:
    with pytest.raises(YamlError):
        parse_grants("apiVersion: kulvert.dev/v1alpha1\nkind: Grants\ngrants: [{<<: {name: x}}]\n")


def test_keys_must_be_strings() -> None:
    for key in ("1", "[a]", "{a: b}", "true", "''"):
        with pytest.raises(YamlError, match="must be a non-empty string"):
            read_document(f"? {key}\n: x\n", "f").fields(required=frozenset({"a"}))


@given(st.text(max_size=60))
def test_no_text_is_more_than_refused(text: str) -> None:
    with pytest.raises(YamlError):
        parse_grants(text)
