"""Which programs are taken from where, and what is said when they cannot be."""

from pathlib import Path

import pytest

from tests.testbed import BedError
from tests.testbed.pins import BINARIES, go_needed, key, kubernetes_version, ldflags
from tests.testbed.place import locate, place

ORDINARY = ("etcd", "kube-apiserver", "kubectl")


def fill(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).touch(mode=0o755)
    return directory


def test_the_cache_is_where_xdg_says_under_the_key_of_the_pins(tmp_path: Path) -> None:
    found = place({"XDG_CACHE_HOME": str(tmp_path)})
    assert found.directory == tmp_path / "kulvert-testbed" / key()
    assert found.build == BINARIES


def test_what_is_not_built_is_named_with_the_remedy(tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    fill(place(env).directory, *(binary.name for binary in BINARIES if binary.name != "kwok"))
    with pytest.raises(BedError, match=r"\(kwok missing\): run `make testbed`"):
        locate(env)
    fill(place(env).directory, "kwok")
    assert locate(env) == place(env).directory


def test_a_whole_assets_directory_is_used_as_it_is(tmp_path: Path) -> None:
    assets = fill(tmp_path / "assets", *(binary.name for binary in BINARIES))
    assert locate({"KUBEBUILDER_ASSETS": str(assets)}) == assets


def test_an_ordinary_assets_directory_is_completed_beside_itself(tmp_path: Path) -> None:
    assets = fill(tmp_path / "assets", *ORDINARY)
    found = place({"KUBEBUILDER_ASSETS": str(assets), "XDG_CACHE_HOME": str(tmp_path)})
    assert found.given == assets
    assert [binary.name for binary in found.build] == ["kube-controller-manager", "kubelet", "kwok", "dex", "helm"]
    assert found.directory.parent == tmp_path / "kulvert-testbed"


@pytest.mark.parametrize(("names", "complaint"), [(None, "is not a directory"), (["etcd"], "has no kube-apiserver")])
def test_a_useless_assets_directory_is_refused(tmp_path: Path, names: list[str] | None, complaint: str) -> None:
    assets = tmp_path / "assets"
    if names is not None:
        fill(assets, *names)
    with pytest.raises(BedError, match=complaint):
        place({"KUBEBUILDER_ASSETS": str(assets)})


def test_a_program_that_cannot_be_run_is_none(tmp_path: Path) -> None:
    assets = fill(tmp_path / "assets", *ORDINARY)
    (assets / "etcd").chmod(0o644)
    with pytest.raises(BedError, match="has no etcd"):
        place({"KUBEBUILDER_ASSETS": str(assets)})


def test_the_pins_are_read_from_the_modules() -> None:
    by_name = {binary.name: binary for binary in BINARIES}
    assert f"gitVersion=v{kubernetes_version()}" in ldflags(by_name["kubectl"])
    assert "internal/version.version=v4." in ldflags(by_name["helm"])
    assert go_needed() >= (1, 26)
