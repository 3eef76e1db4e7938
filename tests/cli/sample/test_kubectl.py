"""The judge: a real kubectl, speaking to the sample directly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from cli.sample import SampleServer
from tests.cli.sample import kubectls

KUBECTL = kubectls.find()
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="no kubectl of the test bed: run `make testbed`")
Kubectl = Callable[..., Coroutine[None, None, tuple[int, str, str]]]

MANIFEST = """
apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: team}
data: {colour: COLOUR}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: team}
spec: {containers: [{name: web, image: busybox}]}
"""


@pytest.fixture
def kubectl(kubeconfig: Path, tmp_path: Path) -> Kubectl:
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    async def run(*args: str, stdin: bytes = b"") -> tuple[int, str, str]:
        assert KUBECTL is not None
        process = await asyncio.create_subprocess_exec(
            KUBECTL,
            f"--kubeconfig={kubeconfig}",
            *args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
        )
        async with asyncio.timeout(30):
            out, err = await process.communicate(stdin)
        return process.returncode or 0, out.decode(), err.decode()

    return run


async def test_version_and_get(kubectl: Kubectl) -> None:
    assert "v1.36.0-kulvert-sample" in (await kubectl("version"))[1]
    code, out, _ = await kubectl("get", "pods,nodes", "-A")
    assert (code, "pod/demo" in out, "Running" in out, "node/kulvert-sample" in out) == (0, True, True, True)


async def test_apply_creates_leaves_alone_and_configures(kubectl: Kubectl) -> None:
    red, blue = (MANIFEST.replace("COLOUR", colour).encode() for colour in ("red", "blue"))
    code, out, err = await kubectl("apply", "-f", "-", stdin=red)
    assert (code, out.count("created")) == (0, 3), err
    assert (await kubectl("apply", "-f", "-", stdin=red))[1].count("unchanged") == 3
    assert "configmap/settings configured" in (await kubectl("apply", "-f", "-", stdin=blue))[1]
    path = "jsonpath={.data.colour}"
    assert (await kubectl("get", "cm", "settings", "-n", "team", "-o", path))[1] == "blue"
    assert (await kubectl("delete", "ns", "team"))[0] == 0


@pytest.mark.parametrize(
    "what",
    [
        ("configmap", "x", "--from-literal=a=b"),
        ("namespace", "x"),
        ("secret", "generic", "x", "--from-literal=a=b"),
        ("service", "clusterip", "x", "--tcp=80:8080"),
    ],
)
async def test_create_writes_protobuf_and_is_understood(kubectl: Kubectl, what: tuple[str, ...]) -> None:
    code, out, err = await kubectl("create", *what)
    assert (code, "created" in out) == (0, True), err
    code, _, err = await kubectl("delete", what[0], "x")
    assert code == 0, err


async def test_label_annotate_and_patch(kubectl: Kubectl) -> None:
    assert (await kubectl("label", "pod", "demo", "a=b"))[0] == 0
    assert (await kubectl("annotate", "pod", "demo", "c=d"))[0] == 0
    operations = '[{"op": "add", "path": "/metadata/labels/e", "value": "f"}]'
    assert (await kubectl("patch", "pod", "demo", "--type=json", "-p", operations))[0] == 0
    assert "demo" in (await kubectl("get", "pods", "-l", "a=b,e=f"))[1]


async def test_wait_and_describe(kubectl: Kubectl) -> None:
    assert (await kubectl("wait", "--for=condition=Ready", "pod/demo", "--timeout=10s"))[0] == 0
    assert "kulvert.dev/sample=true" in (await kubectl("describe", "pod", "demo"))[1]


async def test_who_one_is_and_what_one_may(kubectl: Kubectl) -> None:
    assert "kulvert:admins" in (await kubectl("auth", "whoami"))[1]
    viewer = ("--as=v", "--as-group=kulvert:viewers")
    assert (await kubectl("auth", "can-i", "list", "pods", *viewer))[1] == "yes\n"
    assert (await kubectl("auth", "can-i", "delete", "pods", *viewer))[0] == 1
    _, _, err = await kubectl("get", "pods", "--as=bob", "--as-group=none")
    assert 'Error from server (Forbidden): pods is forbidden: User "bob" cannot list' in err


async def test_logs(kubectl: Kubectl) -> None:
    await asyncio.sleep(0.3)
    code, out, _ = await kubectl("logs", "demo", "--tail=2")
    assert (code, len(out.splitlines())) == (0, 2)


async def test_exec_with_input_and_an_exit_code(kubectl: Kubectl, sample: SampleServer) -> None:
    script = "cat; echo err >&2; exit 3"
    code, out, err = await kubectl("exec", "-i", "demo", "--", "sh", "-c", script, stdin=b"hello\n")
    assert (code, out, "err\n" in err) == (3, "hello\n", True)
    execs = [logged for logged in sample.requests if "/exec" in logged.path]
    assert [logged.values("Upgrade") for logged in execs] == [["websocket"]]


async def test_cp_both_ways(kubectl: Kubectl, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(b"x" * 100_000)
    code, _, err = await kubectl("cp", str(there), "demo:copied")
    assert code == 0, err
    assert (await kubectl("cp", "demo:copied", str(back)))[0] == 0
    assert back.read_bytes() == there.read_bytes()


async def test_what_is_not_done_is_said(kubectl: Kubectl) -> None:
    code, _, err = await kubectl("port-forward", "pod/demo", "0:80")
    assert (code, "does not implement port-forward" in err) == (1, True)
    _, _, err = await kubectl("apply", "--server-side", "-f", "-", stdin=MANIFEST.encode())
    assert "Server-side apply not available on the server" in err
