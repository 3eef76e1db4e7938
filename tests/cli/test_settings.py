"""Settings as options: every one of them, with its variable, its default and what it is."""

from __future__ import annotations

import pytest

from agent.config import NAMES
from cli.serverconfig import FLAGS
from tests.cli.command import kulvert

SERVE = [(flag.name, flag.variable) for flag in FLAGS]
AGENT = [(name.replace("_", "-"), f"KULVERT_AGENT_{name.upper()}") for name in NAMES]


@pytest.mark.parametrize(("command", "flags"), [("serve", SERVE), ("agent", AGENT)])
def test_the_help_names_every_setting_and_its_variable(command: str, flags: list[tuple[str, str]]) -> None:
    text = " ".join(kulvert(command, "--help").output.split())
    for flag, variable in flags:
        assert f"--{flag} VALUE" in text
        assert f"env var: {variable}" in text


def test_every_setting_of_the_server_is_explained() -> None:
    assert all(flag.text for flag in FLAGS)


def test_the_help_shows_defaults() -> None:
    assert "default: /var/lib/kulvert]" in " ".join(kulvert("serve", "--help").output.split())
