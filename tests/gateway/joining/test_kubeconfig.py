"""A stranger's kubeconfig: used for what it holds itself; nothing in it is run, read or believed."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from auth.pki import CertificateAuthority
from gateway.joining.install import JoinFailed
from gateway.joining.kubeconfig import read

NOW = 1_800_000_000.0
CA = CertificateAuthority.create("a cluster", NOW)
ISSUED = CA.issue_client("admin", ("system:masters",), NOW, 3600.0)
SECRET = "planted-token"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


CLUSTER = {"server": "https://10.0.0.1:6443", "certificate-authority-data": encoded(CA.certificate_pem)}
USER = {"token": SECRET}
CERTIFICATE = {
    "client-certificate-data": encoded(ISSUED.certificate),
    "client-key-data": encoded(ISSUED.key),
}


def document(cluster: Any = CLUSTER, user: Any = USER, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "x"}}],
        "clusters": [{"name": "k", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    } | more


def kubeconfig(cluster: Any = CLUSTER, user: Any = USER, **more: Any) -> bytes:
    return yaml.safe_dump(document(cluster, user, **more)).encode()


def test_a_token_and_a_ca_are_used() -> None:
    target = read(kubeconfig(CLUSTER | {"tls-server-name": "kubernetes", "server": "https://h:6443/k8s/c1/"}))
    assert (target.url, target.name, target.token) == ("https://h:6443/k8s/c1", "kubernetes", SECRET)
    assert target.tls.verify_mode is ssl.CERT_REQUIRED
    assert target.tls.check_hostname
    assert len(target.tls.get_ca_certs()) == 1
    assert SECRET not in repr(target)


def test_a_client_certificate_is_used_and_is_on_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    assert read(kubeconfig(user=CERTIFICATE)).token is None


HOSTILE_USERS = [
    {"exec": {"command": "touch", "args": ["/tmp/owned"]}},
    USER | {"exec": None},
    USER | {"exec": {"command": "true"}},
    {"auth-provider": {"name": "gcp"}},
    USER | {"auth-provider": {}},
    {"tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"},
    USER | {"tokenFile": "/etc/passwd"},
    {"client-certificate": "/etc/kulvert/tls.crt", "client-key": "/etc/kulvert/tls.key"},
    CERTIFICATE | {"client-key": "/etc/kulvert/tls.key"},
    USER | {"as": "system:admin"},
    USER | {"as-groups": ["system:masters"]},
    {"username": "u", "password": SECRET},
    {},
    {"token": ""},
    {"token": 5},
    {"token": "a\r\nX-Header: y"},
    {"token": "ü"},
    {"client-certificate-data": encoded(ISSUED.certificate)},
    CERTIFICATE | {"client-key-data": encoded(CA.certificate_pem)},
    CERTIFICATE | {"client-key-data": "!"},
    [],
    None,
]


@pytest.mark.parametrize("user", HOSTILE_USERS)
def test_a_user_that_is_not_wholly_in_the_file_is_refused(user: Any) -> None:
    with pytest.raises(JoinFailed) as refused:
        read(kubeconfig(user=user))
    assert SECRET not in str(refused.value)


HOSTILE_CLUSTERS = [
    CLUSTER | {"insecure-skip-tls-verify": True},
    CLUSTER | {"insecure-skip-tls-verify": False},
    CLUSTER | {"insecure-skip-tls-verify": "true"},
    CLUSTER | {"proxy-url": "http://169.254.169.254"},
    {"server": CLUSTER["server"], "certificate-authority": "/etc/ssl/cert.pem"},
    CLUSTER | {"certificate-authority-data": ""},
    CLUSTER | {"certificate-authority-data": encoded(b"none")},
    CLUSTER | {"certificate-authority-data": None},
    CLUSTER | {"server": "http://10.0.0.1"},
    CLUSTER | {"server": "https://"},
    CLUSTER | {"server": "https://user:pass@h"},
    CLUSTER | {"server": "https://h:99999"},
    CLUSTER | {"server": "https://h?x=y"},
    CLUSTER | {"server": "unix:///run/docker.sock"},
    CLUSTER | {"server": "file:///etc/passwd"},
    CLUSTER | {"server": ["https://h"]},
    CLUSTER | {"unheard-of": 1},
    {},
    None,
]


@pytest.mark.parametrize("cluster", HOSTILE_CLUSTERS)
def test_a_cluster_that_cannot_be_verified_is_refused(cluster: Any) -> None:
    with pytest.raises(JoinFailed):
        read(kubeconfig(cluster))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"- a",
        b"{" * 2_000,
        b"x" * 300_000,
        kubeconfig() + b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
        b"!!python/object/apply:os.system ['true']",
        kubeconfig() + b"\n---\nx: y\n",
        kubeconfig(**{"current-context": "other"}),
        kubeconfig(**{"current-context": None}),
        kubeconfig(users="x"),
        kubeconfig(users=[{"name": "u", "user": USER}, {"name": "u", "user": CERTIFICATE}]),
        kubeconfig(contexts=[{"name": "c", "context": {"cluster": ["k"], "user": {}}}]),
    ],
)
def test_what_is_no_kubeconfig_is_refused(data: bytes) -> None:
    with pytest.raises(JoinFailed):
        read(data)


@given(st.recursive(st.none() | st.booleans() | st.text(max_size=8), lambda kids: st.lists(kids, max_size=3)))
def test_odd_shapes_are_refused_and_are_no_crash(odd: Any) -> None:
    for key in ("contexts", "clusters", "users", "current-context"):
        with pytest.raises(JoinFailed):
            read(kubeconfig(**{key: odd}))
