"""Names with `*`: matched as shells do, and compared soundly."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.grants.patterns import Patterns, all_within, matches, may_meet, within

patterns = st.text(alphabet="ab*", max_size=6)
names = st.text(alphabet="ab", max_size=8)


@given(st.text(alphabet="ab*", max_size=8), st.text(alphabet="ab", max_size=10))
def test_patterns_match_as_shells_do(pattern: str, name: str) -> None:
    assert matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)


def test_no_pattern_takes_long() -> None:
    began = time.process_time()
    assert not matches("*a" * 31 + "*b", "a" * 63)
    assert time.process_time() - began < 0.05


@given(st.lists(patterns, max_size=4), names)
def test_prepared_patterns_match_as_each_of_them_does(several: list[str], name: str) -> None:
    assert Patterns(several).match(name) == any(matches(pattern, name) for pattern in several)


@given(patterns, patterns, names)
def test_what_is_within_another_matches_nothing_else(inner: str, outer: str, name: str) -> None:
    if within(inner, outer) and matches(inner, name):
        assert matches(outer, name)


@given(patterns, patterns, names)
def test_patterns_that_never_meet_share_no_name(one: str, other: str, name: str) -> None:
    if not may_meet(one, other):
        assert not (matches(one, name) and matches(other, name))


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("edge-7", "edge-*", True),
        ("edge-*", "edge-*", True),
        ("edge-7*", "edge-*", True),
        ("edge-*", "edge-7", False),
        ("*", "edge-*", False),
        ("*-7", "*", True),
        ("e*7", "edge-*", False),
    ],
)
def test_containment_as_people_expect_it(inner: str, outer: str, expected: bool) -> None:
    assert within(inner, outer) is expected
    assert all_within([inner, inner], ["none", outer]) is expected


def test_plainly_different_prefixes_and_suffixes_do_not_meet() -> None:
    assert not may_meet("edge-*", "prod-*")
    assert not may_meet("*-a", "*-b")
    assert not may_meet("edge-1", "edge-2")
    assert may_meet("edge-*", "*-a")
