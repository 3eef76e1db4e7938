"""Tokens that rotate, the pod's own access, kubeconfigs: what is taken, what is refused, and that no secret
shows.
"""

from __future__ import annotations

import base64
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.credentials import NoAccess, TokenFile, bearer
from agent.incluster import InCluster
from agent.kubeconfig import load
from tests.agent.conftest import Before
from tests.agent.fakes import get
from tests.agent.pki import Authority
from tests.agent.test_pool import serve

ENV = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def rotate(path: Path, token: str) -> None:
    """As the kubelet does: a new file in the old one's place."""
    new = path.with_suffix(".new")
    new.write_text(token)
    os.replace(new, path)


def test_a_rotated_token_is_seen_within_a_second(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n")
    token = TokenFile(path)
    assert token.authorization(100.0) == b"Bearer one"
    rotate(path, "two")
    assert token.authorization(100.5) == b"Bearer one"
    assert token.authorization(101.1) == b"Bearer two"


def test_a_token_that_vanishes_or_is_half_written_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    token = TokenFile(path)
    for now, content in ((10.0, ""), (20.0, "a\nb"), (30.0, None)):
        path.unlink() if content is None else path.write_text(content)
        assert token.authorization(now) == b"Bearer one"
    path.write_text("two")
    assert token.authorization(40.0) == b"Bearer two"


@pytest.mark.parametrize("raw", [b"", b" \n", b"a b", b"a\r\nx: y", b"\xff", b"a" * 70_000])
def test_what_cannot_be_a_token_never_gets_into_a_header(raw: bytes) -> None:
    with pytest.raises(NoAccess):
        bearer(raw, "here")


def test_in_cluster(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_text(authority.pem)
    access = InCluster(ENV, tmp_path)
    assert (access.server.host, access.server.port, access.server.name) == ("10.0.0.1", 443, "10.0.0.1")
    assert access.authorization(1.0) == b"Bearer secret"
    assert "secret" not in repr(access)
    first = access.context()
    assert access.context() is first
    rotate(tmp_path / "ca.crt", Authority().pem)
    second = access.context()
    assert second is not first
    (tmp_path / "ca.crt").unlink()
    assert access.context() is second


def test_in_cluster_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NoAccess, match="set kubeconfig"):
        InCluster({}, tmp_path)
    with pytest.raises(NoAccess, match="cannot read the token"):
        InCluster(ENV, tmp_path)
    (tmp_path / "token").write_text("secret")
    with pytest.raises(NoAccess, match="CA"):
        InCluster(ENV, tmp_path)
    (tmp_path / "ca.crt").write_text("nothing")
    with pytest.raises(NoAccess, match="CA"):
        InCluster(ENV, tmp_path)


def kubeconfig(path: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    """A kubeconfig with two contexts, `here` being the current one."""
    file = path / "config"
    contexts = [{"name": n, "context": {"cluster": n, "user": n}} for n in ("here", "there")]
    file.write_text(
        yaml.safe_dump(
            {
                "current-context": "here",
                "contexts": contexts,
                "clusters": [
                    {"name": "here", "cluster": cluster},
                    {"name": "there", "cluster": {**cluster, "server": "https://there.test"}},
                ],
                "users": [{"name": "here", "user": user}, {"name": "there", "user": {"token": "other"}}],
            }
        )
    )
    return file


@pytest.fixture
def cluster(authority: Authority) -> dict[str, Any]:
    return {
        "server": "https://api.test:6443/base/",
        "certificate-authority-data": base64.b64encode(authority.pem.encode()).decode(),
        "tls-server-name": "kubernetes",
    }


def test_a_kubeconfig_with_a_token(tmp_path: Path, cluster: dict[str, Any]) -> None:
    access = load(kubeconfig(tmp_path, cluster, {"token": "secret"}))
    server = access.server
    assert (server.host, server.port, server.name, server.prefix) == ("api.test", 6443, "kubernetes", b"/base")
    assert access.authorization(0) == b"Bearer secret"
    assert "secret" not in repr(access)


def test_another_context_by_name(tmp_path: Path, cluster: dict[str, Any]) -> None:
    file = kubeconfig(tmp_path, cluster, {"token": "secret"})
    assert load(file, "there").server.host == "there.test"
    with pytest.raises(NoAccess, match="no context 'nowhere'"):
        load(file, "nowhere")


def test_a_token_file_beside_the_kubeconfig_rotates(tmp_path: Path, cluster: dict[str, Any]) -> None:
    (tmp_path / "token").write_text("one")
    access = load(kubeconfig(tmp_path, cluster, {"tokenFile": "token", "token": "unused"}))
    assert access.authorization(5.0) == b"Bearer one"
    rotate(tmp_path / "token", "two")
    assert access.authorization(7.0) == b"Bearer two"


def test_a_client_certificate_by_data_and_by_files(
    tmp_path: Path, cluster: dict[str, Any], authority: Authority
) -> None:
    pair = authority.issue("admin")
    (tmp_path / "c.pem").write_text(pair.cert)
    (tmp_path / "k.pem").write_text(pair.key)
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in (("c", pair.cert), ("k", pair.key))}
    by_data = {"client-certificate-data": encoded["c"], "client-key-data": encoded["k"]}
    for user in (by_data, {"client-certificate": "c.pem", "client-key": str(tmp_path / "k.pem")}):
        assert load(kubeconfig(tmp_path, cluster, user)).authorization(0) is None


async def test_a_client_certificate_is_shown_to_the_api_server(
    tmp_path: Path, authority: Authority, before: Before
) -> None:
    pair = authority.issue("admin")
    async with before(serve) as world:
        ca = tmp_path / "ca.pem"
        ca.write_text(authority.pem)
        world.server._context.verify_mode = ssl.CERT_REQUIRED
        world.server._context.load_verify_locations(ca)
        (tmp_path / "c.pem").write_text(pair.cert)
        (tmp_path / "k.pem").write_text(pair.key)
        described = {"server": f"https://127.0.0.1:{world.server.port}", "certificate-authority": "ca.pem"}
        user = {"client-certificate": "c.pem", "client-key": "k.pem"}
        world.pool.access = load(kubeconfig(tmp_path, described, user))
        assert (await world.ask(get())).data == b"ok"
        peer = world.server.clients[0].writer.get_extra_info("peercert")
        assert peer["subject"] == ((("commonName", "admin"),),)


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ({"exec": {"command": "aws"}}, "exec runs a program"),
        ({"auth-provider": {"name": "gcp"}}, "auth-provider was removed"),
        ({"username": "a", "password": "secret"}, "basic authentication"),
        ({"token": "secret", "as": "b"}, "impersonation"),
        ({}, "no token, tokenFile or client certificate"),
        ({"client-certificate-data": "c2VjcmV0", "client-key-data": "c2VjcmV0"}, "do not fit"),
        ({"client-certificate-data": "*secret*", "client-key-data": "c2VjcmV0"}, "not base64"),
        ({"client-certificate": "missing.pem", "client-key": "missing.pem"}, "cannot read client-certificate"),
        ({"tokenFile": "missing"}, "cannot read the token"),
        ({"token": "secret\nx: y"}, "does not hold a token"),
    ],
)
def test_users_that_are_refused(tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], why: str) -> None:
    with pytest.raises(NoAccess, match=why) as caught:
        load(kubeconfig(tmp_path, cluster, user))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify is refused"),
        ({"proxy-url": "http://x"}, "proxy-url is not supported"),
        ({"server": "http://api.test"}, "server is not https"),
        ({"server": "https://a:b@api.test"}, "server is not https"),
        ({"server": "https://api.test/a b"}, "malformed path"),
        ({"certificate-authority-data": "eA=="}, "not a PEM certificate"),
        ({"certificate-authority-data": None, "certificate-authority": "missing"}, "cannot read certificate-authority"),
    ],
)
def test_clusters_that_are_refused(tmp_path: Path, cluster: dict[str, Any], changed: dict[str, Any], why: str) -> None:
    with pytest.raises(NoAccess, match=why):
        load(kubeconfig(tmp_path, {**cluster, **changed}, {"token": "secret"}))


@pytest.mark.parametrize(
    "content", ["", "[]", "token: secret: x", "current-context: 3", "contexts: [3]\ncurrent-context: a"]
)
def test_what_is_no_kubeconfig_is_refused_without_quoting_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config"
    file.write_text(content)
    with pytest.raises(NoAccess) as caught:
        load(file)
    assert "secret" not in str(caught.value)
    with pytest.raises(NoAccess, match="cannot read"):
        load(tmp_path / "missing")


async def test_a_rotated_token_is_used_by_the_next_request(tmp_path: Path, before: Before) -> None:
    (tmp_path / "token").write_text("one")
    token = TokenFile(tmp_path / "token")
    now = 0.0

    class Rotating:
        def __init__(self, inner: Any) -> None:
            self.server = inner.server
            self.context = inner.context

        def authorization(self, _now: float) -> bytes:
            return token.authorization(now)

    async with before(serve) as world:
        world.pool.access = Rotating(world.pool.access)
        await world.ask(get())
        rotate(tmp_path / "token", "two")
        now = 2.0
        await world.ask(get())
        seen = bytes(world.server.clients[0].seen)
        assert [line for line in seen.split(b"\r\n") if line.startswith(b"authorization")] == [
            b"authorization: Bearer one",
            b"authorization: Bearer two",
        ]
