"""What a fresh sample holds: two namespaces, a node, a note, and a pod that really writes a log."""

from __future__ import annotations

from cli.sample.admission import NODE, Admission
from cli.sample.document import LABEL, VERSION, Obj, timestamp
from cli.sample.resources import CONFIGMAPS, NAMESPACES, NODES, PODS
from cli.sample.store import Store, Stored

_LABELS = {LABEL: "true"}
_NOTE = (
    "This is the sample API server that is embedded in Kulvert, not a cluster. Objects live in memory, no images "
    "are run, and exec starts processes on the machine that the sample runs on."
)


def plant(store: Store, admission: Admission, uid: str) -> Stored:
    """Fill the store; the answer is the demo pod. The UID of kube-system is the cluster's id."""
    for name in ("default", "kube-system"):
        namespace = admission.new(NAMESPACES, "", {"metadata": {"name": name, "labels": _LABELS}})
        if name == "kube-system":
            namespace["metadata"]["uid"] = uid
        store.create(NAMESPACES, namespace)
    store.create(NODES, _node(admission))
    note = {"metadata": {"name": NODE, "labels": _LABELS}, "data": {"note": _NOTE, "version": VERSION}}
    store.create(CONFIGMAPS, admission.new(CONFIGMAPS, "kube-system", note))
    return store.create(PODS, admission.new(PODS, "default", _demo()))


def demo_command(interval: float) -> list[str]:
    """A real process: counts, tells the time, and waits."""
    script = (
        'exec 2>&1; i=0; while :; do i=$((i+1)); echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) line $i of the Kulvert sample"; '
        f"sleep {interval}; done"
    )
    return ["sh", "-c", script]


def _demo() -> Obj:
    metadata: Obj = {"name": "demo", "labels": _LABELS | {"app": "demo"}}
    metadata["annotations"] = {"kulvert.dev/note": "a sample: its container is a local process, not an image"}
    container = {"name": "demo", "image": "kulvert.dev/sample:local-process", "command": demo_command(1)}
    return {"metadata": metadata, "spec": {"containers": [container]}}


def _node(admission: Admission) -> Obj:
    node = admission.new(NODES, "", {"metadata": {"name": NODE, "labels": _LABELS}, "spec": {}})
    now = timestamp(admission.sources.now())
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Sample",
        "message": "an embedded sample, not a node",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    info = dict.fromkeys(("osImage", "kernelVersion", "containerRuntimeVersion", "architecture"), "sample")
    capacity = {"cpu": "1", "memory": "1Gi", "pods": "110"}
    node["status"] = {
        "conditions": [ready],
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "nodeInfo": info | {"kubeletVersion": VERSION, "operatingSystem": "sample"},
        "capacity": capacity,
        "allocatable": capacity,
    }
    return node
