"""A holder of the Lease that has lost it is not attached to again, for a while."""

from __future__ import annotations

import pytest

from agent.attaching import AttachFailed
from agent.epochs import MEMORY, UNKNOWN, Epochs


def test_the_same_epoch_and_later_ones_are_taken() -> None:
    epochs = Epochs()
    for epoch in (0, 1, 1, 7):
        epochs.attached(epoch, 100.0)
    assert epochs.highest == 7


def test_an_earlier_one_is_refused_until_the_later_is_forgotten() -> None:
    epochs = Epochs()
    epochs.attached(7, 100.0)
    for take in (epochs.check, epochs.attached):
        with pytest.raises(AttachFailed, match="is older than 7"):
            take(6, 100.0 + MEMORY - 1)
    epochs.attached(6, 100.0 + MEMORY)
    epochs.attached(6, 100.0 + MEMORY)
    assert epochs.highest == 6


def test_what_a_challenge_says_is_not_remembered_before_there_is_a_session() -> None:
    epochs = Epochs()
    epochs.check(2**62, 100.0)
    epochs.attached(7, 100.0)
    assert epochs.highest == 7


def test_a_challenge_that_leaves_it_to_the_welcome_is_never_too_old() -> None:
    epochs = Epochs()
    epochs.attached(7, 100.0)
    epochs.check(UNKNOWN, 101.0)
