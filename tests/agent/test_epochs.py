"""A holder of the Lease that has lost it is not attached to again, for a while."""

from __future__ import annotations

import pytest

from agent.attaching import AttachFailed
from agent.epochs import MEMORY, Epochs


def test_the_same_epoch_and_later_ones_are_taken() -> None:
    epochs = Epochs()
    for epoch in (0, 1, 1, 7):
        epochs.check(epoch, 100.0)
    assert epochs.highest == 7


def test_an_earlier_one_is_refused_until_the_later_is_forgotten() -> None:
    epochs = Epochs()
    epochs.check(7, 100.0)
    with pytest.raises(AttachFailed, match="is older than 7"):
        epochs.check(6, 100.0 + MEMORY - 1)
    epochs.check(6, 100.0 + MEMORY)
    epochs.check(6, 100.0 + MEMORY)
    assert epochs.highest == 6
