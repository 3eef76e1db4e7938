"""What Helm makes of the charts: as it was looked at, taken by a real API server, refused where it makes no sense."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from gateway.joining.manifest import Installation
from tests.charts.cases import CASES, CHARTS, NAMES, NAMESPACE, Case
from tests.charts.helm import Helm
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import create_namespace

FOREIGN = {
    "Certificate": ("cert-manager.io", "v1", "certificates"),
    "ServiceMonitor": ("monitoring.coreos.com", "v1", "servicemonitors"),
}
"""Kinds of others that the charts make: the test bed has them by name alone, so that their content is not judged."""
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAMESPACES = (NAMESPACE, "joining", "tokens")
TRIAL = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
AGENT = ("--set", "cluster=edge-7,servers={https://k.example.com:8444}")


@pytest.fixture(scope="module")
def helm(testbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(testbed / "helm", tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def prepared(clusters: tuple[Cluster, Cluster]) -> Iterator[Cluster]:
    """A cluster with the namespaces, and the kinds of others, that the documents need."""
    hub = clusters[1]
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        made = runner.run(_prepare(hub))
        try:
            yield hub
        finally:
            runner.run(_clean(hub, made))


async def _prepare(hub: Cluster) -> set[str]:
    """Gives the namespaces that were made for it."""
    there = {one["metadata"]["name"] for one in (await hub.api.get("/api/v1/namespaces"))["items"]}
    for name in NAMESPACES:
        await create_namespace(hub, name)
    for kind, (group, version, plural) in FOREIGN.items():
        await hub.api.create(CRDS, crd(kind, group, version, plural))
        name = f"crd/{plural}.{group}"
        (await hub.kubectl("wait", "--for=condition=Established", name)).check()
        await hub.wait_for(partial(_served, hub, group, version, plural), f"{plural} to be served")
    return set(NAMESPACES) - there


async def _served(hub: Cluster, group: str, version: str, plural: str) -> bool:
    return (await hub.kubectl("get", f"{plural}.{version}.{group}")).returncode == 0


async def _clean(hub: Cluster, namespaces: set[str]) -> None:
    names = [f"{plural}.{group}" for group, _, plural in FOREIGN.values()]
    (await hub.kubectl("delete", "crd", *names)).check()
    if namespaces:
        (await hub.kubectl("delete", "namespace", *sorted(namespaces), "--wait=false")).check()


def crd(kind: str, group: str, version: str, plural: str) -> dict[str, object]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }


# --- rendered


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_charts_are_rendered_as_they_were_looked_at(helm: Helm, one: Case) -> None:
    assert helm.template(one) == one.golden.read_text(), "python -m tests.charts.renew, and look at the difference"


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_charts_pass_helms_own_checks(helm: Helm, one: Case) -> None:
    done = helm.run(
        "lint", "--strict", "--quiet", "--kube-version", one.kubernetes, "-f", one.values, CHARTS / one.chart
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("chart", NAMES)
def test_a_chart_is_packed_whole_and_without_what_is_for_its_makers(helm: Helm, chart: str, tmp_path: Path) -> None:
    assert helm.run("package", CHARTS / chart, "--destination", tmp_path).returncode == 0
    (packed,) = tmp_path.glob("*.tgz")
    shown = helm.run("show", "all", packed).stdout
    assert "values: python -m tests.charts.renew" in shown, "README.md"
    assert ("CustomResourceDefinition" in shown) is (chart == "kulvert")
    with tarfile.open(packed) as archive:
        listed = archive.getnames()
    assert f"{chart}/values.schema.json" in listed
    assert not any("/ci/" in name for name in listed)


@pytest.mark.parametrize(
    ("chart", "values", "complaint"),
    [
        ("kulvert", "mode=active", "value must be one of 'single', 'standby', 'sharded'"),
        ("kulvert", "replicas=3", "replicas"),
        ("kulvert", "image.tag=1,imageTag=2", "additional properties 'imageTag' not allowed"),
        (
            "kulvert",
            "hub.enabled=false",
            "mode=standby keeps its state in the hub: set hub.enabled=true, or mode=single",
        ),
        ("kulvert", "state.persistence.enabled=true", "state.persistence is for mode=single"),
        ("kulvert", "autoscaling.enabled=true", "autoscaling is for mode=sharded"),
        ("kulvert", "autoJoin.enabled=true", "autoJoin.enabled needs autoJoin.agentsAddress"),
        ("kulvert", "tls.existingSecret=a,tls.certManager.enabled=true", "exclude each other: keep one"),
        ("kulvert", "tls.certManager.enabled=true", "tls.certManager.issuerRef.name"),
        ("kulvert", "serviceMonitor.enabled=true", "serviceMonitor.tokenSecret.name"),
        ("kulvert", "config.stateDir=/tmp", "config.stateDir is set by the chart itself: use the value state"),
        ("kulvert", "config.replicas.mode=single", "use the value mode"),
        ("kulvert", "image.digest=sha256:1", "does not match pattern"),
        ("kulvert-agent", "cluster=edge-7", "minItems: got 0, want 1"),
        ("kulvert-agent", "servers={https://k}", "minLength: got 0, want 1"),
        ("kulvert-agent", "cluster=Edge,servers={https://k}", "does not match pattern"),
        ("kulvert-agent", "cluster=e,servers={http://k}", "does not match pattern"),
        ("kulvert-agent", "cluster=e,servers={https://k},joinToken.value=secret", "does not match pattern"),
        ("kulvert-agent", "cluster=e,servers={https://k},policy.readonly=true", "additional properties 'readonly'"),
        ("kulvert-agent", "cluster=e,servers={https://k},config.stateDir=/x", "config.stateDir is set by the chart"),
        ("kulvert-agent", "cluster=e,servers={https://k},serverCA.pem=x", "serverCA.pem is no PEM certificate"),
        ("kulvert-agent", "cluster=e,servers={https://k},serverCA.pem=x,serverCA.existingSecret=y", "keep one"),
        ("kulvert-agent", "cluster=e,servers={https://k},impersonation.mode=listed", "name in impersonation.users"),
        (
            "kulvert-agent",
            "cluster=e,servers={https://k},impersonation.mode=unrestricted,impersonation.users={a}",
            "take the mode listed",
        ),
        ("kulvert-agent", "cluster=e,servers={https://k},roles.uninstall=true,fullnameOverride=x", "release name"),
    ],
)
def test_values_that_make_no_sense_are_refused_with_a_reason(
    helm: Helm, chart: str, values: str, complaint: str
) -> None:
    done = helm.run("template", chart, CHARTS / chart, "--kube-version", "1.36.0", "--set", values)
    assert done.returncode != 0
    assert complaint in done.stderr
    assert done.stdout == ""


def test_an_older_cluster_gets_nothing_by_default_that_would_make_its_agent_cluster_admin(helm: Helm) -> None:
    done = helm.run("template", "a", CHARTS / "kulvert-agent", "--kube-version", "1.35.9", *AGENT)
    assert "Kubernetes v1.35.9 has no constrained impersonation" in done.stderr
    vendors = helm.run("template", "a", CHARTS / "kulvert-agent", "--kube-version", "v1.36.0-eks-1234", *AGENT)
    assert "impersonate:user-info" in vendors.stdout


@pytest.mark.parametrize(("chart", "version"), [("kulvert", "1.29.9"), ("kulvert-agent", "1.24.9")])
def test_a_cluster_that_is_too_old_is_refused(helm: Helm, chart: str, version: str) -> None:
    done = helm.run("template", chart, CHARTS / chart, "--kube-version", version, *(AGENT if "agent" in chart else ()))
    assert "incompatible with Kubernetes" in done.stderr


# --- judged by a real API server


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
async def test_a_real_api_server_takes_every_document_and_knows_every_field(prepared: Cluster, one: Case) -> None:
    done = await prepared.kubectl(*TRIAL, "-f", one.golden, "-o", "name")
    assert (done.returncode, done.err) == (0, "")
    assert len(done.out.splitlines()) == len(one.objects)


@pytest.mark.parametrize("part", ["kulvert/crds", "crds", "crds-without-ocm", "."])
async def test_a_real_api_server_takes_the_crds_and_the_loose_files(prepared: Cluster, part: str) -> None:
    done = await prepared.kubectl(*TRIAL, "-f", CHARTS / part, "-o", "name")
    missing = [line for line in done.err.splitlines() if 'namespaces "kulvert-join" not found' not in line]
    assert not missing, "only what is in the namespace that a trial does not make"
    assert done.out


async def test_the_printed_manifest_is_a_resource_for_kustomize(prepared: Cluster, tmp_path: Path) -> None:
    made = Installation("edge-7", ("https://k.example.com:8444",), "kvt_id.secret", "PEM", "kulvert/kulvert:1")
    (tmp_path / "edge-7.yaml").write_text(made.text())
    changes = {
        "resources": ["edge-7.yaml"],
        "images": [{"name": "kulvert/kulvert", "newName": "registry.example.com/kulvert", "newTag": "2"}],
        "replicas": [{"name": "kulvert-agent", "count": 3}],
        "labels": [{"pairs": {"team": "edge"}}],
        "patches": [{
            "target": {"kind": "Deployment"},
            "patch": "- {op: add, path: /spec/template/spec/priorityClassName, value: system-cluster-critical}",
        }],
    }  # fmt: skip
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(changes))
    built = (await prepared.kubectl("kustomize", tmp_path)).check().out
    objects = list(yaml.safe_load_all(built))
    assert len(objects) == len(made.objects())
    assert all(one["metadata"]["labels"]["team"] == "edge" for one in objects)
    (deployment,) = (one for one in objects if one["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert (deployment["spec"]["replicas"], pod["priorityClassName"]) == (3, "system-cluster-critical")
    assert pod["containers"][0]["image"] == "registry.example.com/kulvert:2"
    checked = await prepared.kubectl(*TRIAL, "-k", tmp_path, "-o", "name")
    assert len(checked.check().out.splitlines()) == len(objects)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_name_the_services_that_the_chart_makes(path: Path) -> None:
    services = {"kulvert": 443, "kulvert-agents": 8444}
    named = [found for one in yaml.safe_load_all(path.read_text()) for found in _backends(one)]
    assert {name for name, _ in named} == set(services)
    assert all(services[name] == port for name, port in named)


def _backends(node: object) -> list[tuple[str, int]]:
    if isinstance(node, list):
        return [found for item in node for found in _backends(item)]
    if not isinstance(node, dict):
        return []
    here = []
    if "backendRefs" in node:
        here = [(ref["name"], ref["port"]) for ref in node["backendRefs"]]
    elif "service" in node and "port" in node["service"]:
        here = [(node["service"]["name"], node["service"]["port"]["number"])]
    return here + [found for key, item in node.items() if key != "backendRefs" for found in _backends(item)]
