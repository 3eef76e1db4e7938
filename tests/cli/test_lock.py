"""One server to a state directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.failures import Failed
from cli.lock import only_one


def test_a_second_one_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    with only_one(directory), pytest.raises(Failed, match="choose another --state-dir"), only_one(directory):
        pass
    with only_one(directory):
        assert directory.stat().st_mode & 0o777 == 0o700
