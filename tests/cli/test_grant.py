"""`kulvert grant`, on a server's state and over its API: one set of commands, one set of rules."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import Result

from auth.grants.grant import Grant
from auth.grants.sources import GrantSources
from auth.identity import Identity
from auth.pki import CertificateAuthority
from gateway.failures import Refused
from gateway.granting.accessapi import AccessApi
from gateway.granting.api import GrantsApi
from gateway.granting.store import GrantStore
from gateway.handover import Caller
from gateway.membership.registry import Cluster, SqliteRegistry
from tests.cli.command import kulvert
from tests.cli.fakegateway import API, FakeGateway, town

DEV = """\
apiVersion: kulvert.dev/v1alpha1
kind: Grant
metadata: {name: dev}
spec:
  subjects: [{kind: Group, name: dev}]
  clusters: [edge-*]
---
apiVersion: kulvert.dev/v1alpha1
kind: Grant
metadata: {name: ops}
spec:
  subjects: [{kind: Group, name: ops}]
  clusters: ['*']
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    assert kulvert("cluster", "add", "edge-7", "--label", "env=dev", "--state-dir", tmp_path / "s").exit_code == 0
    return tmp_path / "s"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "grants.yaml"
    path.write_text(DEV)
    return path


def run(state: Path, *args: str | Path) -> Result:
    return kulvert("grant", *args, "--state-dir", state)


def listed(state: Path) -> list[str]:
    return [line.split()[0] for line in run(state, "list").stdout.splitlines()[1:]]


def test_a_grant_is_created_listed_shown_and_deleted(state: Path) -> None:
    made = run(
        state, "create", "dev", "--user", "ada", "--group", "dev", "--service-account", "ci/x", "--cluster", "edge-*",
        "--cluster-label", "env=dev", "--verb", "get", "--resource", "pods/log", "--namespace", "team-*",
        "--no-interactive", "--delegate", "--ttl", "1h", "--priority", "3",
    )  # fmt: skip
    assert (made.exit_code, made.output) == (0, "grant dev created\n")
    (line,) = run(state, "list").stdout.splitlines()[1:]
    assert line.split()[:4] == ["dev", "store", "user:ada,group:dev,serviceaccount:ci/x", "edge-*"]
    shown = yaml.safe_load(run(state, "show", "dev").stdout)
    assert shown["spec"]["access"] == {
        "verbs": ["get"], "resources": ["pods/log"], "namespaces": ["team-*"], "interactive": False,
    }  # fmt: skip
    assert (shown["spec"]["delegate"], shown["spec"]["priority"], shown["status"]["inForce"]) == (True, 3, True)
    assert json.loads(run(state, "show", "dev", "-o", "json").stdout) == shown
    assert run(state, "delete", "dev").output == "grant dev deleted\n"
    assert listed(state) == []


def test_a_running_server_follows_and_knows_who_it_was(state: Path) -> None:
    registry = SqliteRegistry(state / "clusters.db")
    store = GrantStore(registry.database)
    run(state, "create", "dev", "--user", "ada", "--cluster", "*")
    assert registry.poll()
    assert [grant.name for grant in store.grants()] == ["dev"]
    assert store.changes()[0].by.endswith("on the server's machine")
    registry.close()


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["create", "x", "--cluster", "*"], "spec.subjects: must not be empty"),
        (["create", "x", "--user", "a"], "names no clusters"),
        (["create", "X/", "--user", "a", "--cluster", "*"], "metadata.name: must be a name"),
        (["create", "x", "--user", "a", "--cluster", "A_"], "must be a cluster's name"),
        (["create", "x", "--user", "a", "--cluster", "*", "--verb", "use"], "is no verb of a request"),
        (["show", "nil"], "`kulvert grant list` shows them"),
        (["delete", "nil"], "`kulvert grant list` shows them"),
    ],
)
def test_what_cannot_be_done_is_one_line(state: Path, args: list[str], line: str) -> None:
    result = run(state, *args)
    assert result.exit_code == 1
    assert line in result.stderr
    assert result.stderr.count("\n") == 1


def test_grants_of_the_file_are_shown_and_left_alone(state: Path) -> None:
    head = "apiVersion: kulvert.dev/v1alpha1\nkind: Grants\ngrants:\n"
    grants = state / "grants.yaml"
    grants.write_text(head + "- {name: first, subjects: [{kind: User, name: a}], clusters: ['*']}\n")
    grants.chmod(0o600)
    assert listed(state) == ["first"]
    for args in (["delete", "first"], ["create", "first", "--user", "b", "--cluster", "*"]):
        assert "change it there" in run(state, *args).stderr


def test_what_others_wrote_into_a_grant_does_not_reach_the_terminal_as_it_is(state: Path, file: Path) -> None:
    file.write_text(DEV.replace("name: dev}]", 'name: "dev\\a\\e[2Jx"}]'))
    assert run(state, "apply", "-f", file).exit_code == 0
    for args in (["list"], ["show", "dev"], ["show", "dev", "-o", "json"]):
        assert not {"\x07", "\x1b"} & set(run(state, *args).stdout)


# --- apply


def test_to_apply_twice_changes_nothing_more(state: Path, file: Path) -> None:
    assert run(state, "apply", "-f", file).output == "grant dev created\ngrant ops created\n"
    assert run(state, "apply", "-f", file).output == "grant dev unchanged\ngrant ops unchanged\n"
    file.write_text(DEV.replace("edge-*", "edge-7"))
    assert run(state, "apply", "-f", file, "--dry-run").output.startswith("grant dev configured (dry run)\n")
    assert run(state, "apply", "-f", file).output == "grant dev configured\ngrant ops unchanged\n"
    assert run(state, "apply", "-f", file).output == "grant dev unchanged\ngrant ops unchanged\n"
    assert yaml.safe_load(run(state, "show", "dev").stdout)["spec"]["clusters"] == ["edge-7"]


def test_what_is_shown_can_be_applied(state: Path, file: Path) -> None:
    run(state, "apply", "-f", file, "--label", "app=a")
    file.write_text(run(state, "show", "dev").stdout)
    assert run(state, "apply", "-f", file).output == "grant dev unchanged\n"


def test_prune_deletes_what_carries_the_label_and_nothing_else(state: Path, file: Path) -> None:
    run(state, "create", "other", "--user", "a", "--cluster", "*")
    assert run(state, "apply", "-f", file, "--label", "by=git").exit_code == 0
    file.write_text(DEV.partition("---")[0])
    assert listed(state) == ["dev", "ops", "other"]
    assert run(state, "apply", "-f", file, "--label", "by=git", "--prune", "--dry-run").exit_code == 0
    assert listed(state) == ["dev", "ops", "other"]
    pruned = run(state, "apply", "-f", file, "--label", "by=git", "--prune")
    assert pruned.output == "grant dev unchanged\ngrant ops deleted\n"
    assert listed(state) == ["dev", "other"]
    assert "--prune needs --label" in run(state, "apply", "-f", file, "--prune").stderr


def test_a_directory_is_read_whole_before_anything_is_changed(state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grants"
    folder.mkdir()
    (folder / "a.yaml").write_text(DEV.partition("---")[0])
    (folder / "b.json").write_text(json.dumps(yaml.safe_load(DEV.partition("---")[2])))
    (folder / "notes.txt").write_text("not read")
    (folder / "z.yml").write_text("kind: x\n")
    assert "z.yml:1:" in run(state, "apply", "-f", folder).stderr
    assert listed(state) == []
    (folder / "z.yml").write_text(DEV.partition("---")[0])
    assert "in another of these files already" in run(state, "apply", "-f", folder).stderr
    (folder / "z.yml").unlink()
    assert run(state, "apply", "-f", folder).output == "grant dev created\ngrant ops created\n"


# --- over the API


class Remote:
    """A gateway's routes over TLS, asked by the commands in a thread. Whose token it is, the token says."""

    def __init__(self, path: Path) -> None:
        self.registry = SqliteRegistry(path / "remote.db")
        self.registry.add(Cluster("edge-7"))
        self.store = GrantStore(self.registry.database)
        self.sources = GrantSources("file", "store")
        owned = Grant("owned", groups=frozenset({"owners"}), clusters=("edge-*",), delegate=True)
        self.sources.changed("file", [owned], 0.0)
        self.store.subscribe(self.take)
        self.take()
        self.path = path
        self.url = ""

    def take(self) -> None:
        self.sources.changed("store", self.store.grants(), 0.0)

    def kubeconfig(self, token: str) -> Path:
        cluster = {"server": f"{self.url}/clusters/edge-7", "certificate-authority": "ca.pem"}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token} if token else {}}],
        }
        file = self.path / f"{token or 'nobody'}.kubeconfig"
        file.write_text(yaml.safe_dump(document))
        return file

    async def run(self, user: str, *args: str | Path) -> Result:
        return await asyncio.to_thread(kulvert, *args, "--kubeconfig", self.kubeconfig(user))


@pytest.fixture
async def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Remote]:
    groups = {"olga": ("owners",), "root": ("kulvert:admins",)}

    def caller(request: web.Request) -> Caller:
        user = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not user:
            return Caller(None, "", "audit")
        return Caller(Identity(user, groups.get(user, ()), "", (), "test", user, 9e9), "", "audit")

    @web.middleware
    async def as_status(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
            return answer
        except Refused as refused:
            return web.json_response({"message": refused.failure.text(refused.detail)}, status=refused.failure.code)

    monkeypatch.setattr("gateway.granting.api.caller_of", caller)
    made = Remote(tmp_path)
    app = web.Application(middlewares=[as_status])
    app.router.add_routes(GrantsApi(made.store, made.sources, made.registry, lambda: 0.0).routes())
    app.router.add_routes(AccessApi(made.sources, made.registry, lambda: 0.0).routes())
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=_tls(tmp_path))
    made.url = f"https://127.0.0.1:{server.port}"
    yield made
    await server.close()
    made.registry.close()


def _tls(path: Path) -> ssl.SSLContext:
    authority = CertificateAuthority.load_or_create(path / "authority.pem", "test", time.time())
    (path / "ca.pem").write_bytes(authority.certificate_pem)
    issued = authority.issue_server(("127.0.0.1",), time.time(), 3600.0)
    (path / "server.pem").write_bytes(issued.certificate + issued.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path / "server.pem")
    return context


async def test_an_owner_does_the_same_over_the_api_within_the_rules(remote: Remote, file: Path) -> None:
    made = await remote.run("olga", "grant", "create", "bobs", "--user", "bob", "--cluster", "edge-7")
    assert made.exit_code == 0, made.output
    assert made.output == "grant bobs created\n"
    refused = await remote.run("olga", "grant", "create", "x", "--user", "bob", "--cluster", "*")
    assert refused.exit_code == 1
    assert "it goes beyond your grant 'owned'" in refused.stderr
    assert "Kulvert's gateway does not let you do this" in (await remote.run("bob", "grant", "delete", "bobs")).stderr
    assert "there is no grant 'bobs'" in (await remote.run("eve", "grant", "delete", "bobs")).stderr
    file.write_text(DEV.partition("---")[0])
    assert (await remote.run("olga", "grant", "apply", "-f", file)).output == "grant dev created\n"
    assert (await remote.run("olga", "grant", "apply", "-f", file)).output == "grant dev unchanged\n"
    file.write_text(DEV.partition("---")[0].replace("edge-*", "edge-7"))
    assert (await remote.run("olga", "grant", "apply", "-f", file)).output == "grant dev configured\n"
    assert (await remote.run("olga", "grant", "delete", "dev")).output == "grant dev deleted\n"
    lines = (await remote.run("root", "grant", "list")).stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["owned", "bobs"]


async def test_access_is_explained_over_the_api(remote: Remote) -> None:
    await remote.run("olga", "grant", "create", "bobs", "--user", "bob", "--cluster", "edge-7", "--read-only")
    asked = ["access", "explain", "bob", "edge-7"]
    yes = await remote.run("bob", *asked, "get", "pods")
    assert (yes.exit_code, yes.output.splitlines()[0]) == (0, "yes: allowed by grant 'bobs'")
    no = await remote.run("olga", *asked, "create", "pods/exec")
    assert no.exit_code == 1
    assert "is read-only" in no.stdout
    assert "you may ask about yourself" in (await remote.run("eve", *asked, "get", "pods")).stderr


async def test_credentials_go_nowhere_else(remote: Remote, tmp_path: Path) -> None:
    other = await asyncio.to_thread(
        kulvert, "grant", "list", "--kubeconfig", remote.kubeconfig("olga"), "--server", "https://elsewhere.example"
    )
    assert "its credentials are not sent there" in other.stderr
    assert "no client certificate and no token" in (await remote.run("", "grant", "list")).stderr
    login = await asyncio.to_thread(
        kulvert, "grant", "list", "--server", remote.url, env={"KULVERT_CACHE_DIR": str(tmp_path / "c")}
    )
    assert f"you are not signed in at {remote.url}: `kulvert login --server" in login.stderr


def test_whoever_has_signed_in_sees_what_concerns_him(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routes, items = FakeGateway.application, [{"metadata": {"name": "dev"}, "spec": {}, "status": {"source": "store"}}]

    def application(gateway: FakeGateway) -> web.Application:
        async def grants(request: web.Request) -> web.Response:
            assert request.headers["Authorization"].startswith("Bearer ey")
            return web.json_response({"items": items})

        made = routes(gateway)
        made.router.add_get(f"{API}/grants", grants)
        return made

    monkeypatch.setattr(FakeGateway, "application", application)
    with town(tmp_path) as place:
        assert place.log_in().exit_code == 0
        result = place.kulvert("grant", "list", "--server", place.gateway.url)
        assert result.stdout.splitlines()[1].split() == ["dev", "store", "-", "-", "all", "-", "no:"]
        items.append({"metadata": {}})
        assert "makes no sense" in place.kulvert("grant", "list", "--server", place.gateway.url).stderr


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
