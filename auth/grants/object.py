"""A single grant as an object of Kubernetes' form: `kind: Grant`, metadata and spec. The management API, the command
`kulvert grant` and the hub's resources share it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from auth.grants.grant import Grant
from auth.grants.labelselector import Labels, label_key, label_value
from auth.grants.spec import OPTIONAL, REQUIRED, read_grant
from auth.yamlnodes import Value, YamlError

API_VERSION = "kulvert.dev/v1alpha1"
KIND = "Grant"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_METADATA = frozenset({"resourceVersion", "labels"})
_IGNORED = frozenset(
    {"annotations", "creationTimestamp", "finalizers", "generation", "managedFields", "ownerReferences", "uid"}
)
_MOST_LABELS = 64
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class GrantObject:
    """A grant with what its object says besides. `version` is the resourceVersion that a change expects, or empty."""

    grant: Grant
    labels: Labels = ()
    version: str = ""


def read_object(root: Value) -> GrantObject:
    """:raises YamlError: with place and field, for whatever is not exactly as documented."""
    fields = root.fields(required=frozenset({"apiVersion", "kind", "metadata", "spec"}), optional=frozenset({"status"}))
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if fields[name].text() != expected:
            raise fields[name].error(f"must be {expected}")
    metadata = fields["metadata"].fields(required=frozenset({"name"}), optional=_METADATA | _IGNORED)
    name = grant_name(metadata["name"])
    spec = fields["spec"].fields(required=REQUIRED, optional=OPTIONAL | {"priority"})
    return GrantObject(
        read_grant(name, spec, fields["spec"]),
        _labels(metadata["labels"]) if "labels" in metadata else (),
        metadata["resourceVersion"].text() if "resourceVersion" in metadata else "",
    )


def grant_name(value: Value) -> str:
    """The name of a stored grant. :raises YamlError: it is none."""
    if not _NAME.fullmatch(value.text()):
        raise value.error("must be a name of a-z, 0-9, - and ., at most 63 characters")
    return value.text()


def value_of(document: object, source: str) -> Value:
    """Parsed JSON, to be read as strictly as YAML. It knows no lines, so errors name source and field."""
    return Value(_node(document, source), source, "")


def _node(value: Any, source: str, depth: int = 0) -> yaml.Node:
    if depth > _MAX_DEPTH:
        raise YamlError(f"{source}: nests deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        pairs = [(_node(key, source), _node(one, source, depth + 1)) for key, one in value.items()]
        return yaml.MappingNode("tag:yaml.org,2002:map", pairs)
    if isinstance(value, list):
        return yaml.SequenceNode("tag:yaml.org,2002:seq", [_node(one, source, depth + 1) for one in value])
    kind = {str: "str", bool: "bool", int: "int"}.get(type(value), "null")
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return yaml.ScalarNode(f"tag:yaml.org,2002:{kind}", text)


def _labels(value: Value) -> Labels:
    found = value.entries()
    for key, one in found.items():
        if not label_key(key) or not label_value(one.text()):
            raise one.error(f"{key!r}: {one.text()!r} is no label")
    if len(found) > _MOST_LABELS:
        raise value.error(f"has more than {_MOST_LABELS} labels")
    return tuple(sorted((key, one.text()) for key, one in found.items()))
