"""The file format `AuthenticationConfiguration` of `apiserver.config.k8s.io` (v1 and v1beta1), read as strictly as
kube-apiserver does, and then some: what a file written for kube-apiserver means there, it means here, or it is refused
with its line. CEL expressions are not evaluated here, so they are refused, but for an extra that is just a claim:
Kubernetes has no other way to say that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final
from urllib.parse import SplitResult, urlsplit

import yaml
from cryptography import x509

from auth.oidc.config import AuthenticationConfiguration, ExtraClaim, JwtIssuer, PrefixedClaim, Required
from auth.yamlnodes import Value, read_document

API_VERSIONS: Final = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1")
KIND: Final = "AuthenticationConfiguration"
MOST_ISSUERS: Final = 64

_STR: Final = "tag:yaml.org,2002:str"
_NO_CEL: Final = "CEL expressions are not supported here"
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_JUST_A_CLAIM: Final = re.compile(rf"""\s*claims\s*(?:\.\s*({_NAME})|\[\s*(?:'([^'\\]+)'|"([^"\\]+)")\s*\])\s*""")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_EXTRA_KEY: Final = re.compile(rf"({_LABEL}(?:\.{_LABEL})*)/[a-z0-9._~!$&'()*+,;=:@/%-]+")
_RESERVED: Final = re.compile(r"(?:.*\.)?(?:kubernetes|k8s)\.io")


def parse_authentication_configuration(
    text: str, source: str = "authentication configuration", disallowed: Collection[str] = ()
) -> AuthenticationConfiguration:
    """Reads a file. `disallowed` are issuers who are known otherwise: Kulvert's own, for one.

    :raises YamlError: with file, line and field, for whatever is not understood.
    """
    root = read_document(text, source).fields(
        required=frozenset({"apiVersion", "kind"}), optional=frozenset({"jwt", "anonymous"})
    )
    if root["apiVersion"].text() not in API_VERSIONS:
        raise root["apiVersion"].error(f"must be {' or '.join(API_VERSIONS)}")
    if root["kind"].text() != KIND:
        raise root["kind"].error(f"must be {KIND}")
    if anonymous := root.get("anonymous"):
        _refuse_anonymous(anonymous)
    items = root["jwt"].items() if "jwt" in root else []
    if len(items) > MOST_ISSUERS:
        raise root["jwt"].error(f"has more than {MOST_ISSUERS} entries")
    return AuthenticationConfiguration(_unique(items, disallowed))


def _unique(items: Iterable[Value], disallowed: Collection[str]) -> tuple[JwtIssuer, ...]:
    found: dict[str, JwtIssuer] = {}
    discoveries: set[str] = set()
    for item in items:
        issuer = _issuer(item)
        if issuer.url in found:
            raise item.error(f"an issuer {issuer.url} is there already")
        if issuer.url in disallowed:
            raise item.error(f"the issuer {issuer.url} is known to Kulvert already, with keys of its own")
        if issuer.discovery_url in discoveries:
            raise item.error(f"the discoveryURL {issuer.discovery_url} is another issuer's")
        found[issuer.url] = issuer
        discoveries |= {issuer.discovery_url} - {""}
    return tuple(found.values())


def _refuse_anonymous(value: Value) -> None:
    fields = value.fields(required=frozenset({"enabled"}), optional=frozenset({"conditions"}))
    if fields["enabled"].flag():
        raise fields["enabled"].error("must be false: there is no anonymous user here")
    if "conditions" in fields and fields["conditions"].items():
        raise fields["conditions"].error("say nothing where anonymous users are not enabled: remove them")


def _issuer(item: Value) -> JwtIssuer:
    entry = item.fields(
        required=frozenset({"issuer", "claimMappings"}),
        optional=frozenset({"claimValidationRules", "userValidationRules"}),
    )
    if "userValidationRules" in entry and entry["userValidationRules"].items():
        raise entry["userValidationRules"].error(_NO_CEL)
    issuer = entry["issuer"].fields(
        required=frozenset({"url", "audiences"}),
        optional=frozenset({"discoveryURL", "certificateAuthority", "audienceMatchPolicy", "egressSelectorType"}),
    )
    if "egressSelectorType" in issuer:
        raise issuer["egressSelectorType"].error("is not supported: Kulvert dials the issuer itself")
    mapping = entry["claimMappings"].fields(
        required=frozenset({"username"}), optional=frozenset({"groups", "uid", "extra"})
    )
    return JwtIssuer(
        url=_url(issuer["url"]),
        audiences=_audiences(issuer),
        username=_prefixed(mapping["username"]),
        groups=_prefixed(mapping["groups"]) if "groups" in mapping and mapping["groups"].node.value else None,
        uid=_claim(mapping["uid"]) if "uid" in mapping and mapping["uid"].node.value else "",
        extra=_extra(mapping["extra"]) if "extra" in mapping else (),
        required=_rules(entry["claimValidationRules"]) if "claimValidationRules" in entry else (),
        discovery_url=_discovery(issuer) if "discoveryURL" in issuer else "",
        authorities=_authorities(issuer["certificateAuthority"]) if "certificateAuthority" in issuer else None,
    )


def _discovery(issuer: dict[str, Value]) -> str:
    url = _url(issuer["discoveryURL"])
    if url.rstrip("/") == issuer["url"].text().rstrip("/"):
        raise issuer["discoveryURL"].error("must differ from url: it is the address of the discovery document itself")
    return url


def _url(value: Value) -> str:
    text = value.text()
    try:
        parts: SplitResult | None = urlsplit(text)
        usable = parts is not None and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, usable = None, False
    if parts is None or not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise value.error("is not a URL")
    if parts.scheme != "https" or not text.startswith("https://"):
        raise value.error("must begin with https://")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise value.error("may have no user name, no password, no query and no fragment")
    return text


def _audiences(issuer: dict[str, Value]) -> tuple[str, ...]:
    audiences = issuer["audiences"].texts()
    if not audiences:
        raise issuer["audiences"].error("must not be empty")
    policy = issuer.get("audienceMatchPolicy")
    told = _any_text(policy) if policy else ""
    if told not in ("", "MatchAny"):
        raise issuer["audienceMatchPolicy"].error("must be MatchAny")
    if len(audiences) > 1 and not told:
        raise issuer["audiences"].error("are several, so audienceMatchPolicy must be MatchAny")
    return audiences


def _authorities(value: Value) -> str | None:
    pem = _any_text(value)
    try:
        if pem:
            x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise value.error("must hold certificates in PEM form, in place (not the name of a file)") from None
    return pem or None


def _prefixed(value: Value) -> PrefixedClaim:
    fields = value.fields(required=frozenset(), optional=frozenset({"claim", "prefix", "expression"}))
    if "expression" in fields:
        raise fields["expression"].error(f"{_NO_CEL}: use claim and prefix")
    if "claim" not in fields:
        raise value.error("lacks claim")
    if "prefix" not in fields:
        raise value.error("lacks prefix; write prefix: '' for none")
    return PrefixedClaim(fields["claim"].text(), _any_text(fields["prefix"]))


def _claim(value: Value) -> str:
    fields = value.fields(required=frozenset(), optional=frozenset({"claim", "expression"}))
    if "expression" in fields:
        raise fields["expression"].error(f"{_NO_CEL}: use claim")
    if "claim" not in fields:
        raise value.error("lacks claim")
    return fields["claim"].text()


def _extra(value: Value) -> tuple[ExtraClaim, ...]:
    found: dict[str, ExtraClaim] = {}
    for item in value.items():
        fields = item.fields(required=frozenset({"key", "valueExpression"}))
        key, expression = fields["key"].text(), fields["valueExpression"]
        parts = _EXTRA_KEY.fullmatch(key)
        if not parts:
            raise fields["key"].error("must be a lower-case path with a domain in front, like example.org/department")
        if _RESERVED.fullmatch(parts[1]):
            raise fields["key"].error("kubernetes.io and k8s.io are Kubernetes' own")
        if key in found:
            raise item.error(f"a key {key} is there already")
        just = _JUST_A_CLAIM.fullmatch(expression.text())
        if not just:
            raise expression.error(f"{_NO_CEL}, but for a claim's value: claims.NAME or claims['NAME']")
        found[key] = ExtraClaim(key, next(name for name in just.groups() if name))
    return tuple(found.values())


def _rules(value: Value) -> Required:
    found: dict[str, str] = {}
    for item in value.items():
        fields = item.fields(
            required=frozenset(), optional=frozenset({"claim", "requiredValue", "expression", "message"})
        )
        if "expression" in fields:
            raise fields["expression"].error(f"{_NO_CEL}: use claim and requiredValue")
        if "message" in fields:
            raise fields["message"].error("belongs to an expression, and expressions are not supported here")
        if "claim" not in fields:
            raise item.error("lacks claim")
        claim = fields["claim"].text()
        if claim in found:
            raise item.error(f"a rule for the claim {claim!r} is there already")
        found[claim] = _any_text(fields["requiredValue"]) if "requiredValue" in fields else ""
    return tuple(found.items())


def _any_text(value: Value) -> str:
    """As `Value.text`, but possibly empty."""
    if isinstance(value.node, yaml.ScalarNode) and value.node.tag == _STR and not value.node.value:
        return ""
    return value.text()
