"""Label selectors: as Kubernetes reads them, and contained only where that is proved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.grants.labelselector import LabelSelector, Requirement, label_key, label_value

values = st.frozensets(st.sampled_from("abc"), min_size=1, max_size=2)
keys = st.sampled_from(["k", "l"])
requirements = st.one_of(
    st.builds(Requirement, keys, st.sampled_from(["In", "NotIn"]), values),
    st.builds(Requirement, keys, st.sampled_from(["Exists", "DoesNotExist"])),
)
selectors = st.builds(LabelSelector, st.lists(requirements, min_size=1, max_size=3).map(tuple))
labels = st.dictionaries(keys, st.sampled_from("abcd")).map(lambda found: tuple(found.items()))


@pytest.mark.parametrize(
    ("requirement", "chosen"),
    [
        (Requirement("k", "In", frozenset("ab")), [True, False, False]),
        (Requirement("k", "NotIn", frozenset("ab")), [False, True, True]),
        (Requirement("k", "Exists"), [True, True, False]),
        (Requirement("k", "DoesNotExist"), [False, False, True]),
    ],
)
def test_operators_as_in_kubernetes(requirement: Requirement, chosen: list[bool]) -> None:
    selector = LabelSelector((requirement,))
    assert [selector.matches(one) for one in ((("k", "a"),), (("k", "c"),), (("l", "a"),))] == chosen


@given(selectors, selectors, labels)
def test_what_is_within_another_chooses_nothing_else(
    inner: LabelSelector, outer: LabelSelector, some: tuple[tuple[str, str], ...]
) -> None:
    if inner.within(outer) and inner.matches(some):
        assert outer.matches(some)


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ([Requirement("k", "In", frozenset("a"))], [Requirement("k", "In", frozenset("ab"))], True),
        ([Requirement("k", "In", frozenset("ab"))], [Requirement("k", "In", frozenset("a"))], False),
        ([Requirement("k", "In", frozenset("a"))], [Requirement("k", "Exists")], True),
        ([Requirement("k", "Exists")], [Requirement("k", "In", frozenset("a"))], False),
        ([Requirement("k", "In", frozenset("a"))], [Requirement("k", "NotIn", frozenset("b"))], True),
        ([Requirement("k", "NotIn", frozenset("bc"))], [Requirement("k", "NotIn", frozenset("b"))], True),
        ([Requirement("k", "NotIn", frozenset("b"))], [Requirement("k", "Exists")], False),
        ([Requirement("l", "Exists")], [Requirement("k", "Exists")], False),
        ([Requirement("k", "DoesNotExist")], [Requirement("k", "NotIn", frozenset("b"))], True),
        ([Requirement("k", "In", frozenset("ab")), Requirement("k", "NotIn", frozenset("b"))],
         [Requirement("k", "In", frozenset("a"))], True),
    ],
)  # fmt: skip
def test_containment_as_people_expect_it(inner: list[Requirement], outer: list[Requirement], expected: bool) -> None:
    assert LabelSelector(tuple(inner)).within(LabelSelector(tuple(outer))) is expected


def test_keys_and_values_have_kubernetes_syntax() -> None:
    assert all(map(label_key, ["env", "a.b/c", "x_y.z-0", "kubernetes.io/os"]))
    assert not any(map(label_key, ["", "/x", "-a", "a/b/c", "A.b/c", "a" * 64, "é"]))
    assert all(map(label_value, ["", "dev", "V1.0_x"]))
    assert not any(map(label_value, ["-x", "a b", "x" * 64]))
