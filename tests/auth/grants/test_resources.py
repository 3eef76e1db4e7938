"""Resources as grants name them: read, matched, and compared soundly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.grants.resources import ResourcePattern, Resources

texts = st.sampled_from(
    ["pods", "pods/log", "pods/*", "*", "*/scale", "*/*", "*.apps", "*.apps/scale", "x.apps", "x.*", "x.*/*", "*.*"]
)
asked = st.tuples(
    st.sampled_from(["", "apps"]), st.sampled_from(["pods", "x", "*"]), st.sampled_from(["", "log", "scale", "*"])
)


def pattern(text: str) -> ResourcePattern:
    found = ResourcePattern.parse(text)
    assert found is not None
    return found


@given(texts, texts, asked)
def test_what_is_within_another_matches_nothing_else(inner: str, outer: str, of: tuple[str, str, str]) -> None:
    if pattern(inner).within(pattern(outer)) and pattern(inner).match(*of):
        assert pattern(outer).match(*of)


@given(st.lists(texts, max_size=4), asked)
def test_prepared_patterns_match_as_each_of_them_does(several: list[str], of: tuple[str, str, str]) -> None:
    patterns = [pattern(text) for text in several]
    assert Resources(patterns).match(*of) == any(one.match(*of) for one in patterns)


@given(texts)
def test_a_pattern_is_written_as_it_is_read(text: str) -> None:
    assert pattern(str(pattern(text))) == pattern(text)


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("*", "*/*", False),
        ("*/*", "*", True),
        ("*.apps", "*", True),
        ("*", "*.apps", False),
        ("pods", "*", True),
        ("pods/*", "pods", False),
        ("pods/log", "pods/*", True),
        ("x.apps", "x.*", True),
    ],
)
def test_containment_as_people_expect_it(inner: str, outer: str, expected: bool) -> None:
    assert pattern(inner).within(pattern(outer)) is expected


@pytest.mark.parametrize("text", ["", "Pods", "po*", "pods/", "/log", "pods/log/x", "pods.", "pods.*x", "a b", "**"])
def test_what_is_no_such_pattern(text: str) -> None:
    assert ResourcePattern.parse(text) is None


def test_everything_is_not_within_everything_without_subresources() -> None:
    """Which no text says, but code may."""
    assert not pattern("*").within(ResourcePattern("*", "*"))
