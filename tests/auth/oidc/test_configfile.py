"""The configuration's file while it changes: what is in force, and what is said about what is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from auth.oidc.configfile import AuthenticationConfigFile
from auth.watchedfile import FileError

HEAD = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"


def entry(url: str) -> str:
    mapping = "{username: {claim: sub, prefix: ''}}"
    return HEAD + f"jwt: [{{issuer: {{url: '{url}', audiences: [a]}}, claimMappings: {mapping}}}]\n"


FIRST, SECOND = entry("https://first.test"), entry("https://second.test")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "authentication.yaml"
    file.write_text(FIRST)
    return file


def rewritten(path: Path, text: str) -> None:
    """As an editor or a ConfigMap mount does it: a new file in the old one's place."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    os.replace(draft, path)


def urls(file: AuthenticationConfigFile) -> list[str]:
    return [issuer.url for issuer in file.configuration.issuers]


def test_without_a_readable_file_there_is_no_start(tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        AuthenticationConfigFile(tmp_path / "nothing.yaml")
    for text, reason in (("", "empty"), ("jwt: []", "lacks"), ("x" * (2**20 + 1), "larger")):
        path.write_text(text)
        with pytest.raises(FileError, match=reason):
            AuthenticationConfigFile(path)
    path.write_bytes(b"\xff")
    with pytest.raises(FileError, match="UTF-8"):
        AuthenticationConfigFile(path)


def test_a_file_that_everybody_can_write_names_no_issuers(path: Path) -> None:
    path.chmod(0o666)
    with pytest.raises(FileError, match="chmod o-w"):
        AuthenticationConfigFile(path)


def test_a_changed_file_takes_effect_at_the_next_poll(path: Path) -> None:
    file = AuthenticationConfigFile(path)
    assert urls(file) == ["https://first.test"]
    assert not file.poll()
    rewritten(path, SECOND)
    assert file.poll()
    assert urls(file) == ["https://second.test"]
    assert not file.poll()


@pytest.mark.parametrize("damage", ["broken", "removed", "writable"])
def test_a_broken_new_file_keeps_the_old_issuers_and_says_so(path: Path, damage: str) -> None:
    file = AuthenticationConfigFile(path)
    if damage == "broken":
        rewritten(path, SECOND + "typo: x\n")
    elif damage == "removed":
        path.unlink()
    else:
        rewritten(path, SECOND)
        path.chmod(0o666)
    for _ in range(2):
        assert not file.poll()
        assert urls(file) == ["https://first.test"]
        assert file.problem is not None
        assert "older than the file" in file.problem
        assert str(path) in file.problem
    rewritten(path, SECOND)
    assert file.poll()
    assert file.problem is None
    assert urls(file) == ["https://second.test"]


def test_an_issuer_that_is_known_otherwise_is_refused(path: Path) -> None:
    with pytest.raises(FileError, match="known to Kulvert already"):
        AuthenticationConfigFile(path, ["https://first.test"])
