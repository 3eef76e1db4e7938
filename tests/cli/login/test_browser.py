"""Whether a browser can be opened here, and that it gets the address and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cli.login.browser import command, open_url


@pytest.mark.parametrize(
    ("env", "platform", "there", "expected"),
    [
        ({}, "linux", ("xdg-open",), None),
        ({"DISPLAY": ":0"}, "linux", ("xdg-open",), ["xdg-open"]),
        ({"WAYLAND_DISPLAY": "w"}, "linux", ("x-www-browser",), ["x-www-browser"]),
        ({"DISPLAY": ":0"}, "linux", (), None),
        ({"WSL_DISTRO_NAME": "u"}, "linux", ("wslview",), ["wslview"]),
        ({}, "darwin", (), ["open"]),
        ({"SSH_CONNECTION": "a b"}, "darwin", (), None),
        (
            {"BROWSER": "firefox --new-window %s", "SSH_TTY": "1"},
            "linux",
            ("firefox",),
            ["firefox", "--new-window", "%s"],
        ),
        ({"BROWSER": "absent:firefox"}, "linux", ("firefox",), ["firefox"]),
        ({"BROWSER": "'unbalanced"}, "linux", ("firefox",), None),
    ],
)
def test_where_there_is_one(
    env: dict[str, str], platform: str, there: tuple[str, ...], expected: list[str] | None
) -> None:
    assert command(env, platform, lambda name: name if name in there else None) == expected


def test_the_address_is_one_argument_and_no_shell_sees_it(tmp_path: Path) -> None:
    script, out = tmp_path / "browser", tmp_path / "out"
    script.write_text(f'#!/bin/sh\necho noise\nprintf "%s|" "$@" > {out}.new && mv {out}.new {out}\n')
    script.chmod(0o700)
    assert open_url([str(script), "--at", "%s"], "https://x/?a=$(id)&b=;c")
    deadline = time.monotonic() + 5
    while not out.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert out.read_text() == "--at|https://x/?a=$(id)&b=;c|"


def test_a_browser_that_does_not_start_is_none(tmp_path: Path) -> None:
    assert not open_url([str(tmp_path / "absent")], "https://x")
