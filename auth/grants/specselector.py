"""The `clusterSelector` of a grant as people write it: Kubernetes' LabelSelector."""

from __future__ import annotations

from typing import Any

from auth.grants.labelselector import OPERATORS, LabelSelector, Requirement, label_key, label_value
from auth.yamlnodes import Value

_MOST = 64


def read_selector(value: Value) -> LabelSelector:
    """:raises YamlError: as `auth.grants.spec.read_grant`."""
    fields = value.fields(required=frozenset(), optional=frozenset({"matchLabels", "matchExpressions"}))
    found: list[Requirement] = []
    if "matchLabels" in fields:
        for key, one in fields["matchLabels"].entries().items():
            found.append(Requirement(_known_key(key, one), "In", frozenset((_value(one),))))
    if "matchExpressions" in fields:
        found += [_expression(item) for item in fields["matchExpressions"].items()]
    if not 0 < len(found) <= _MOST:
        raise value.error(f"must have 1 to {_MOST} conditions; for every cluster write clusters: ['*']")
    return LabelSelector(tuple(found))


def selector_fields(selector: LabelSelector) -> dict[str, Any]:
    """Canonical: expressions alone."""
    expressions = [
        {"key": one.key, "operator": one.operator} | ({"values": sorted(one.values)} if one.values else {})
        for one in selector.requirements
    ]
    return {"matchExpressions": expressions}


def _expression(item: Value) -> Requirement:
    fields = item.fields(required=frozenset({"key", "operator"}), optional=frozenset({"values"}))
    key, operator = _known_key(fields["key"].text(), fields["key"]), fields["operator"].text()
    if operator not in OPERATORS:
        raise fields["operator"].error(f"must be one of {', '.join(OPERATORS)}")
    values = fields["values"].texts(_value) if "values" in fields else ()
    if bool(values) != (operator in ("In", "NotIn")):
        raise item.error("In and NotIn need values, Exists and DoesNotExist have none")
    return Requirement(key, operator, frozenset(values))


def _known_key(key: str, where: Value) -> str:
    if not label_key(key):
        raise where.error(f"{key!r} is no label's key")
    return key


def _value(value: Value) -> str:
    if not label_value(value.text()):
        raise value.error(f"{value.text()!r} is no label's value")
    return value.text()
