"""Somebody's kubeconfig: what is not ours stays as it is written, for every reader of YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli.failures import Failed
from cli.kubeconfigtree import Kubeconfig, has_comments, locked

OTHERS = """\
apiVersion: v1
kind: Config
current-context: "1e5"
preferences: {colors: true}
x-of-another-program: &kept [2024-01-01, 0o17, "yes", on, 12345678901234567890]
clusters:
- {name: "1e5", cluster: {server: 'https://x:6443', insecure-skip-tls-verify: true}}
- name: on
  cluster: &shared
    server: https://y
    extensions: [{name: minikube.sigs.k8s.io, extension: {version: 1.30}}]
- name: merged
  cluster: {<<: *shared, tls-server-name: y}
users:
- name: "null"
  user: {token: "0123", as-user-extra: *kept}
- name: plugin
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, args: [eks, "--no"], env: null}
contexts:
- context: {cluster: "1e5", user: "null", namespace: "0x1F"}
  name: "1e5"
"""


class _Read(yaml.SafeLoader):
    """A plain number here and a quoted text there are told apart, for whichever reader."""


def _scalar(_: yaml.SafeLoader, node: yaml.ScalarNode) -> tuple[str, bool]:
    return node.value, node.style is None


for kind in ("str", "int", "float", "bool", "null", "timestamp"):
    _Read.add_constructor(f"tag:yaml.org,2002:{kind}", _scalar)


def seen(text: str) -> Any:
    return yaml.load(text, Loader=_Read)  # noqa: S506 -- a SafeLoader


def without(document: dict[Any, Any], name: str) -> dict[Any, Any]:
    """The document without entries of that name."""
    found = {}
    for key, value in document.items():
        if key[0] in ("clusters", "users", "contexts") and isinstance(value, list):
            value = [item for item in value if all(pair[1][0] != name for pair in item.items() if pair[0][0] == "name")]
        found[key] = value
    return found


def written(config: Kubeconfig, tmp_path: Path) -> str:
    config.write(tmp_path / "out")
    return (tmp_path / "out").read_text()


def read(text: str, tmp_path: Path) -> Kubeconfig:
    (tmp_path / "in").write_text(text)
    return Kubeconfig.read(tmp_path / "in")


def test_adding_and_removing_leaves_everything_else_as_it_is(tmp_path: Path) -> None:
    config = read(OTHERS, tmp_path)
    config.put("clusters", "ours", {"server": "https://gw"})
    config.put("users", "ours", {"token": "1e9"})
    config.put("contexts", "ours", {"cluster": "ours", "user": "ours"})
    text = written(config, tmp_path)
    assert without(seen(text), "ours") == seen(OTHERS)
    assert yaml.safe_load(text)["users"][-1] == {"name": "ours", "user": {"token": "1e9"}}
    config = read(text, tmp_path)
    for key in ("clusters", "users", "contexts"):
        config.remove(key, "ours")
    assert seen(written(config, tmp_path)) == seen(OTHERS)


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co")), min_size=1, max_size=12) | st.sampled_from(
    ["1e5", "null", "yes", "0x1F", "12:30:45", "~", "=", "<<", "2024-01-01", "on", "y", "- a", "a: b", "#", "é", "1_0"]
)


@given(names=st.lists(NAMES, min_size=1, max_size=5, unique=True), token=NAMES)
def test_whatever_a_text_looks_like_it_stays_a_text(names: list[str], token: str) -> None:
    config = Kubeconfig.empty()
    for name in names:
        config.put("users", name, {"token": token})
    config.use(names[0])
    again = yaml.safe_load(config.text())
    assert [(item["name"], item["user"]["token"]) for item in again["users"]] == [(name, token) for name in names]
    assert again["current-context"] == names[0]
    for _, user in ((item, _get_user(item)) for item in seen(config.text())[("users", True)]):
        value, plain = user
        assert not plain or value[0].isalpha() or value[0] == "/"


def _get_user(item: dict[Any, Any]) -> tuple[str, bool]:
    found: tuple[str, bool] = item[("name", True)]
    return found


def test_an_entry_is_renewed_in_its_place_and_can_keep_its_users_fields(tmp_path: Path) -> None:
    config = read(OTHERS, tmp_path)
    config.put("contexts", "1e5", {"cluster": "other"}, keep=True, drop=("user",))
    assert config.entry("contexts", "1e5") == {"cluster": "other", "namespace": "0x1F"}
    config.put("clusters", "on", {"server": "https://z"})
    assert config.names("clusters") == ["1e5", "on", "merged"]
    assert config.entry("clusters", "on") == {"server": "https://z"}
    assert config.entry("clusters", "merged") is not None


def test_an_absent_file_and_absent_lists_are_begun(tmp_path: Path) -> None:
    for text in (None, "", "# nothing\n", "clusters: null\ncontexts: ~\n", "kind: Config\n"):
        config = Kubeconfig.read(tmp_path / "absent") if text is None else read(text, tmp_path)
        config.put("clusters", "ours", {"server": "https://gw"})
        assert yaml.safe_load(config.text())["clusters"] == [{"name": "ours", "cluster": {"server": "https://gw"}}]


@pytest.mark.parametrize(
    "text",
    ["{", "- 1", "contexts: 3", "clusters: [1]", "a: b\n---\nc: d\n", "users: []\nusers: []\n", "\xff", "&a [*a"],
)
def test_what_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "in").write_bytes(text.encode("latin-1"))
    with pytest.raises(Failed, match="nothing was written"):
        Kubeconfig.read(tmp_path / "in")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b\n", False),
        ("a: 'b # c'\n", False),
        ("a: b#c\n", False),
        ("a: b # c\n", True),
        ("# c\na: b\n", True),
        ("a:\n  - b\n  # c\n  - d\n", True),
        ("a: b\n# end", True),
    ],
)
def test_comments_are_found(text: str, expected: bool) -> None:
    assert has_comments(text) is expected


def test_comments_are_saved_beside_the_file_for_its_owner_alone(tmp_path: Path) -> None:
    text = "# mine\n" + OTHERS
    config = read(text, tmp_path)
    assert config.write(tmp_path / "in") == tmp_path / "in.kulvert-backup"
    backup = tmp_path / "in.kulvert-backup"
    assert backup.read_text() == text
    assert backup.stat().st_mode & 0o777 == (tmp_path / "in").stat().st_mode & 0o777 == 0o600
    assert Kubeconfig.read(tmp_path / "in").write(tmp_path / "in") is None
    assert backup.read_text() == text


def test_another_programs_lock_is_respected_and_ours_goes(tmp_path: Path) -> None:
    path = tmp_path / "config"
    with locked(path):
        assert (tmp_path / "config.lock").exists()
        with pytest.raises(Failed, match=r"config\.lock is there"), locked(path):
            pass
        assert (tmp_path / "config.lock").exists()
    assert not (tmp_path / "config.lock").exists()


def test_ten_thousand_entries_are_no_matter() -> None:
    config = Kubeconfig.empty()
    for number in range(10_000):
        config.put("contexts", f"c{number}", {"cluster": f"c{number}", "user": "u"}, keep=True)
        assert config.entry("contexts", f"c{number}") is not None
    assert len(config.names("contexts")) == 10_000
