"""`kulvert kubeconfig` for oneself: contexts for all clusters that one may reach, beside what others have there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.kubeconfigclusters import Contexts, merge
from cli.kubeconfigtree import Kubeconfig
from cli.tokencache import LoginKey
from tests.cli.fakegateway import Town, town

OTHERS: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "mine",
    "clusters": [{"name": "mine", "cluster": {"server": "https://elsewhere:6443"}}],
    "users": [{"name": "mine", "user": {"token": "secret"}}],
    "contexts": [{"name": "mine", "context": {"cluster": "mine", "user": "mine", "namespace": "n"}}],
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Town]:
    with town(tmp_path) as made:
        assert made.log_in().exit_code == 0
        yield made


def contexts(place: Town) -> list[str]:
    return [item["name"] for item in written(place)["contexts"]]


def written(place: Town) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(place.kubeconfig.read_text())
    return found


def put(place: Town, document: dict[str, Any]) -> None:
    place.kubeconfig.write_text(yaml.safe_dump(document))


def test_every_cluster_gets_a_context_and_no_secret_is_written(place: Town) -> None:
    result = place.kulvert("kubeconfig", "--server", place.gateway.url, "--merge")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    found = written(place)
    assert contexts(place) == ["kulvert/alpha", "kulvert/beta"]
    assert found["clusters"][0]["cluster"]["server"] == f"{place.gateway.url}/clusters/alpha"
    (user,) = found["users"]
    plugin = user["user"].pop("exec")
    assert user["user"] == {}
    assert plugin["args"][:3] == ["credential", "--server", place.gateway.url]
    assert (plugin["interactiveMode"], plugin["provideClusterInfo"]) == ("IfAvailable", True)
    assert place.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert "2 added, 0 renewed" in result.stderr


def test_without_merge_it_goes_to_stdout(place: Town) -> None:
    result = place.kulvert("kubeconfig")
    assert [item["name"] for item in yaml.safe_load(result.stdout)["contexts"]] == ["kulvert/alpha", "kulvert/beta"]
    assert not place.kubeconfig.exists()


def test_what_others_have_there_stays_and_so_does_the_current_context(place: Town) -> None:
    put(place, OTHERS)
    assert place.kulvert("kubeconfig", "--merge").exit_code == 0
    assert place.kulvert("kubeconfig", "--merge").exit_code == 0
    found = written(place)
    assert contexts(place) == ["mine", "kulvert/alpha", "kulvert/beta"]
    for key in ("clusters", "users", "contexts"):
        assert found[key][0] == OTHERS[key][0]
    assert found["current-context"] == "mine"


def test_what_its_user_added_to_our_contexts_stays(place: Town) -> None:
    place.kulvert("kubeconfig", "--merge")
    found = written(place)
    found["contexts"][0]["context"]["namespace"] = "team"
    found["clusters"][0]["cluster"]["proxy-url"] = "http://proxy"
    put(place, found)
    place.kulvert("kubeconfig", "--merge")
    again = written(place)
    assert again["contexts"][0]["context"]["namespace"] == "team"
    assert again["clusters"][0]["cluster"]["proxy-url"] == "http://proxy"


def test_a_lost_cluster_is_told_of_and_removed_when_asked(place: Town) -> None:
    put(place, OTHERS)
    place.kulvert("kubeconfig", "--merge", "--use", "beta")
    place.gateway.clusters = ["alpha"]
    result = place.kulvert("kubeconfig", "--merge")
    assert "kulvert/beta" in contexts(place)
    assert "(kulvert/beta): --prune removes them" in result.stderr
    result = place.kulvert("kubeconfig", "--merge", "--prune")
    assert contexts(place) == ["mine", "kulvert/alpha"]
    assert [item["name"] for item in written(place)["clusters"]] == ["mine", "kulvert/alpha"]
    assert written(place)["current-context"] == ""
    assert "1 removed" in result.stderr
    place.gateway.clusters = []
    assert place.kulvert("kubeconfig", "--merge", "--prune").exit_code == 0
    found = written(place)
    assert (contexts(place), [item["name"] for item in found["users"]]) == (["mine"], ["mine"])


def test_nobodys_clusters_are_an_error_that_writes_nothing(place: Town) -> None:
    place.gateway.clusters = []
    result = place.kulvert("kubeconfig", "--merge")
    assert result.exit_code == 1
    assert "you may reach no cluster" in result.stderr
    assert not place.kubeconfig.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clusters", {"cluster": {"server": "https://elsewhere"}}),
        ("clusters", {"cluster": {"server": "https://127.0.0.1.evil.example/clusters/alpha"}}),
        ("contexts", {"context": {"cluster": "mine", "user": "mine"}}),
        ("users", {"user": {"token": "x"}}),
        ("users", {"user": {"exec": {"command": "kulvert", "args": ["credential", "--server", "https://other"]}}}),
    ],
)
def test_a_name_that_is_somebody_elses_is_refused_without_force(place: Town, key: str, value: dict[str, Any]) -> None:
    name = f"kulvert@{place.gateway.url.removeprefix('https://')}" if key == "users" else "kulvert/alpha"
    put(place, OTHERS | {key: [*OTHERS[key], {"name": name} | value]})
    before = place.kubeconfig.read_text()
    result = place.kulvert("kubeconfig", "--merge")
    assert result.exit_code == 1
    assert f"{key[:-1]} {name}" in result.stderr
    assert place.kubeconfig.read_text() == before
    assert place.kulvert("kubeconfig", "--merge", "--context-prefix", "k-").exit_code == (1 if key == "users" else 0)
    assert place.kulvert("kubeconfig", "--merge", "--force").exit_code == 0


def test_two_logins_at_one_gateway_have_contexts_of_their_own(place: Town) -> None:
    assert place.log_in("--profile", "ops").exit_code == 0
    place.kulvert("kubeconfig", "--merge")
    assert place.kulvert("kubeconfig", "--merge", "--profile", "ops").exit_code == 0
    assert contexts(place) == ["kulvert/alpha", "kulvert/beta", "kulvert-ops/alpha", "kulvert-ops/beta"]
    place.gateway.clusters = ["alpha"]
    place.kulvert("kubeconfig", "--merge", "--prune", "--profile", "ops")
    assert contexts(place) == ["kulvert/alpha", "kulvert/beta", "kulvert-ops/alpha"]


def test_a_certificate_is_made_at_once(place: Town) -> None:
    assert place.kulvert("kubeconfig", "--merge", "--certificate").exit_code == 0
    assert written(place)["users"][0]["user"]["exec"]["args"][-1] == "--certificate"
    assert place.gateway.asked == ["certificaterequests", "clusters"]
    place.gateway.refuses["tokenrequests"] = 404
    result = place.kulvert("kubeconfig", "--merge", "--token")
    assert (result.exit_code, "switched off" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--user", "ada"), "name it"),
        (("--ttl", "1h"), "name it"),
        (("alpha", "--prune"), "leave out NAME"),
        (("--prune",), "goes with --merge"),
        (("--server", "http://x"), "not https://HOST"),
        (("--server", "https://x/path"), "not https://HOST"),
        (("--use", "nobody"), "you may reach: alpha, beta"),
    ],
)
def test_what_is_not_meant_so_is_told(place: Town, args: tuple[str, ...], words: str) -> None:
    result = place.kulvert("kubeconfig", *args)
    assert result.exit_code in (1, 2)
    assert words in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_names_from_the_gateway_are_not_believed(place: Town) -> None:
    for odd in ("../x", "a\x1b[2J", "", "a" * 300):
        place.gateway.clusters = ["alpha", odd]
        result = place.kulvert("kubeconfig", "--merge")
        assert (result.exit_code, "makes no sense" in result.stderr) == (1, True)
    assert not place.kubeconfig.exists()


def test_a_gateway_that_does_not_know_one_says_so(place: Town) -> None:
    place.issuer.rotate()
    result = place.kulvert("kubeconfig", "--merge")
    assert result.exit_code == 1
    assert "does not know you: `kulvert login" in result.stderr


def test_another_gateways_context_is_not_pruned() -> None:
    here, there = (LoginKey(f"https://{name}", "https://i", "k") for name in ("here", "there"))
    config = Kubeconfig.empty()
    merge(config, Contexts(here, ("a", "b"), "here/"))
    merge(config, Contexts(there, ("a",), "there/"))
    merged = merge(config, Contexts(here, ("a",), "here/"), prune=True)
    assert merged.removed == ("here/b",)
    assert config.names("contexts") == ["here/a", "there/a"]


# --- signing in and out, as commands


def test_logout_removes_everything_and_tells_the_issuer(place: Town) -> None:
    place.kulvert("kubeconfig", "--merge", "--certificate")
    (token,) = place.issuer.refresh_tokens
    result = place.kulvert("logout")
    assert result.exit_code == 0
    assert "signed out" in result.stdout
    assert "the issuer was told" in result.stdout
    assert place.issuer.revoked == [token]
    assert not list(place.cache.glob("*.json"))
    assert "nobody is signed in here" in place.kulvert("logout").stderr


def test_logout_forgets_even_where_the_issuer_does_not_listen(place: Town) -> None:
    place.issuer.overrides["/revoke"] = (503, b"")
    result = place.kulvert("logout")
    assert result.exit_code == 0
    assert "stays good at the issuer until it expires" in result.stderr
    assert not list(place.cache.glob("*.json"))


def test_logout_of_one_profile_leaves_the_other(place: Town) -> None:
    place.log_in("--profile", "ops")
    assert place.kulvert("logout", "--profile", "ops").exit_code == 0
    assert len(place.files("login")) == 1
    assert place.kulvert("logout", "--profile", "ops").exit_code == 1
    assert place.kulvert("logout", "--all").exit_code == 0


def test_a_gateway_without_a_sign_in_says_who_is_to_act(tmp_path: Path) -> None:
    from gateway.wellknownapi import LoginSettings

    with town(tmp_path, lambda _: LoginSettings()) as place:
        result = place.log_in()
        assert result.exit_code == 1
        assert "its administrator sets login.issuer and login.clientId" in result.stderr
        result = place.log_in("--issuer-url", place.issuer.url)
        assert "name it by --client-id" in result.stderr
        assert place.log_in("--issuer-url", place.issuer.url, "--client-id", "kulvert").exit_code == 0


def test_an_untrusted_gateway_says_how_to_name_its_ca(place: Town) -> None:
    place.kulvert("logout")
    result = place.kulvert("login", "--server", place.gateway.url)
    assert result.exit_code == 1
    assert "name its CA by --certificate-authority FILE" in result.stderr


def test_the_gateway_and_its_ca_are_known_from_the_login_before(place: Town) -> None:
    for more in ((), ("--profile", "new")):
        result = place.kulvert("login", *more)
        assert result.exit_code == 0, result.output
