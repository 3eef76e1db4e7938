"""What the server adds to an object before it is stored, and the little it insists on.

Pods "run" at once: there is no scheduler and no kubelet, and the status says in so many words that this is a
sample.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from cli.sample.document import LABEL, Obj, timestamp
from cli.sample.resources import Resource
from cli.sample.sources import Sources
from cli.sample.status import bad_request, conflict, invalid
from cli.sample.store import Stored

NODE = "kulvert-sample"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAME_RULE = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
_OURS = ("uid", "creationTimestamp", "name", "namespace")
_WITH_STATUS = ("Pod", "Namespace", "Node", "Service")


@dataclass(frozen=True, slots=True)
class Admission:
    sources: Sources

    def new(self, resource: Resource, namespace: str, body: Obj) -> Obj:
        data = _typed(resource, body)
        metadata = _metadata_of(data, namespace) | {
            "uid": self.sources.uid(),
            "creationTimestamp": timestamp(self.sources.now()),
        }
        metadata["name"] = self._name(resource, metadata)
        data["metadata"] = metadata
        return self._filled(resource, data)

    def changed(self, resource: Resource, before: Stored, body: Obj, subresource: str) -> Obj:
        """The new state of an object: identity from the old one, and the status only by way of /status."""
        data = _typed(resource, body)
        metadata = _metadata_of(data, before.key[0])
        _same_object(resource, before, metadata)
        metadata |= {key: before.data["metadata"][key] for key in _OURS if key in before.data["metadata"]}
        data["metadata"] = metadata
        if subresource == "status":
            return before.data | {"status": data.get("status", {})}
        if resource.kind in _WITH_STATUS and "status" in before.data:
            data["status"] = before.data["status"]
        return _secret(data)

    def _name(self, resource: Resource, metadata: Obj) -> str:
        name = metadata.get("name") or ""
        if not name and metadata.get("generateName"):
            name = f"{metadata['generateName']}{self.sources.suffix()}"
        if not name:
            raise invalid(resource.kind, "", "metadata.name", "Required value: name or generateName")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise invalid(resource.kind, str(name), "metadata.name", f'Invalid value: "{name}": {_NAME_RULE}')
        return name

    def _filled(self, resource: Resource, data: Obj) -> Obj:
        if resource.kind == "Pod":
            return self._pod(data)
        if resource.kind == "Namespace":
            return _namespace(data)
        if resource.kind == "Service":
            data["spec"] = {"type": "ClusterIP", "clusterIP": "None"} | (data.get("spec") or {})
            data["status"] = {"loadBalancer": {}}
        return _secret(data)

    def _pod(self, data: Obj) -> Obj:
        spec = data.get("spec") or {}
        name = data["metadata"]["name"]
        containers = spec.get("containers")
        if not isinstance(containers, list) or not containers:
            raise invalid("Pod", name, "spec.containers", "Required value")
        if not all(isinstance(c, dict) and c.get("name") for c in containers):
            raise invalid("Pod", name, "spec.containers[0].name", "Required value")
        defaults = {"restartPolicy": "Always", "serviceAccountName": "default"}
        data["spec"] = defaults | spec | {"nodeName": NODE}
        data["status"] = self._running(containers)
        return data

    def _running(self, containers: list[Obj]) -> Obj:
        now = timestamp(self.sources.now())
        types = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        return {
            "phase": "Running",
            "message": "a sample: no image is run, exec starts local processes",
            "hostIP": "127.0.0.1",
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "startTime": now,
            "qosClass": "BestEffort",
            "conditions": [{"type": t, "status": "True", "lastTransitionTime": now} for t in types],
            "containerStatuses": [_container_status(container, now) for container in containers],
        }


def _typed(resource: Resource, body: Obj) -> Obj:
    """A copy with the kind that the path implies; a body that says another is refused."""
    wanted = {"kind": resource.kind, "apiVersion": resource.api_version}
    for field, value in wanted.items():
        if body.get(field, value) != value:
            raise bad_request(f"the {field} in the data ({body[field]}) does not match the expected {value}")
    return wanted | {key: value for key, value in body.items() if key not in wanted}


def _metadata_of(data: Obj, namespace: str) -> Obj:
    metadata = data.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise bad_request("metadata must be an object")
    if metadata.get("namespace", namespace) not in (namespace, ""):
        why = "the namespace of the provided object does not match the namespace sent on the request"
        raise bad_request(why)
    metadata = {key: value for key, value in metadata.items() if key != "managedFields"}
    return metadata | {"namespace": namespace} if namespace else metadata


def _same_object(resource: Resource, before: Stored, metadata: Obj) -> None:
    name = before.key[1]
    if metadata.get("name", name) != name:
        why = f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
        raise bad_request(why)
    if metadata.get("uid") not in (None, "", before.uid):
        why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {before.uid}"
        raise conflict(resource.qualified, name, why)
    if metadata.get("resourceVersion") not in (None, "", str(before.version)):
        why = "the object has been modified; please apply your changes to the latest version and try again"
        raise conflict(resource.qualified, name, why)


def _namespace(data: Obj) -> Obj:
    labels = {"kubernetes.io/metadata.name": data["metadata"]["name"], LABEL: "true"}
    data["metadata"]["labels"] = (data["metadata"].get("labels") or {}) | labels
    return data | {"spec": {"finalizers": []}, "status": {"phase": "Active"}}


def _secret(data: Obj) -> Obj:
    """`stringData` is for writing only: it ends up, encoded, in `data`."""
    if data["kind"] != "Secret":
        return data
    plain = data.pop("stringData", None) or {}
    encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
    data["data"] = (data.get("data") or {}) | encoded
    return {"type": "Opaque"} | data


def _container_status(container: Obj, now: str) -> Obj:
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": now}},
    }
