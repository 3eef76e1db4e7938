"""What a user can mend becomes a line; a bug shows itself."""

from __future__ import annotations

from cli.failures import Failed, explained
from gateway.membership.registry import RegistryError


def test_expected_errors_become_their_text() -> None:
    assert explained(Failed("no")) == "no"
    assert explained(RegistryError("there is one")) == "there is one"


def test_a_files_error_names_the_file() -> None:
    assert explained(FileNotFoundError(2, "No such file or directory", "/a")) == "/a: No such file or directory"
    assert explained(OSError(98, "Address already in use")) == "Address already in use"


def test_a_group_is_one_line_each_reason_once() -> None:
    group = BaseExceptionGroup("", [Failed("a"), Failed("a"), BaseExceptionGroup("", [OSError(1, "b")])])
    assert explained(group) == "a; b"


def test_a_bug_is_none() -> None:
    assert explained(KeyError("x")) is None
    assert explained(BaseExceptionGroup("", [Failed("a"), KeyError("x")])) is None
