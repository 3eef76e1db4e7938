"""How many descriptors there may be."""

from __future__ import annotations

import resource

import pytest

from gateway.rlimit import SPARE, raise_descriptors, shortage


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """The process's limits, in place of the real ones."""
    kept = {"now": (1_024, 524_288)}
    monkeypatch.setattr(resource, "getrlimit", lambda _which: kept["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, both: kept.__setitem__("now", both))
    return kept


def test_the_soft_limit_becomes_the_hard_one(limits: dict[str, tuple[int, int]]) -> None:
    assert raise_descriptors() == 524_288
    assert limits["now"] == (524_288, 524_288)


@pytest.mark.usefixtures("limits")
def test_a_limit_that_cannot_be_raised_is_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_which: int, _both: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptors() == 1_024


def test_a_shortage_is_told_with_what_to_do() -> None:
    assert shortage(40_000 + SPARE, 20_000, 20_000) is None
    told = shortage(40_000 + SPARE - 1, 20_000, 20_000)
    assert told is not None
    assert "LimitNOFILE" in told
    assert str(40_000 + SPARE) in told
