"""Who is told that a change was overruled."""

from __future__ import annotations

from gateway.mirror.losses import Losses, Since


def test_a_loss_is_told_to_those_whose_change_it_was() -> None:
    losses = Losses()
    since = Since(5, losses.count)
    losses.add({"mine": 7})
    assert losses.among(since, {"mine"})
    assert losses.among(since, None)
    assert not losses.among(since, {"another"})
    assert not losses.among(Since(7, 0), {"mine"}), "it was made before"
    assert not losses.among(Since(5, losses.count), {"mine"}), "it was overruled before"


def test_of_losses_that_nobody_remembers_all_are_told() -> None:
    losses = Losses(most=2)
    since = Since(5, losses.count)
    losses.add({"a": 1, "b": 2})
    assert not losses.among(since, None)
    losses.add({"c": 3})
    assert losses.among(since, ())
    assert not losses.among(Since(5, 1), None)
