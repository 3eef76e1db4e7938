"""Files written for kube-apiserver: what is understood, and that the rest is refused with its line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from auth.oidc.config import AuthenticationConfiguration, ExtraClaim, PrefixedClaim
from auth.oidc.configyaml import parse_authentication_configuration
from auth.yamlnodes import YamlError
from tests.support.cluster_pki import Authority

HEAD = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
WHOLE = (
    HEAD
    + """\
anonymous:
  enabled: false
jwt:
- issuer:
    url: https://example.com/realm
    discoveryURL: https://discovery.example.com/.well-known/openid-configuration
    audiences:
    - my-app
    - my-other-app
    audienceMatchPolicy: MatchAny
  claimValidationRules:
  - claim: hd
    requiredValue: example.com
  - claim: empty
  claimMappings:
    username:
      claim: sub
      prefix: "oidc:"
    groups:
      claim: groups
      prefix: ""
    uid:
      claim: oid
    extra:
    - key: example.com/tenant
      valueExpression: claims.tenant
    - key: example.com/role
      valueExpression: claims['x-role']
- issuer:
    url: https://second.example.com
    audiences: [my-app]
  claimMappings:
    username: {claim: email, prefix: ""}
"""
)
ONE: dict[str, Any] = {
    "issuer": {"url": "https://example.com", "audiences": ["app"]},
    "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
}


def parse(text: str) -> AuthenticationConfiguration:
    return parse_authentication_configuration(text, "auth.yaml")


def with_entries(*entries: dict[str, Any], **root: Any) -> str:
    return HEAD + yaml.safe_dump({"jwt": list(entries), **root})


def changed(path: str, value: Any) -> dict[str, Any]:
    """ONE with something set deep inside; `...` takes it out."""
    entry = copy.deepcopy(ONE)
    *way, last = path.split(".")
    place = entry
    for step in way:
        place = place.setdefault(step, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return entry


def test_all_supported_fields_are_understood() -> None:
    first, second = parse(WHOLE).issuers
    assert first.url == "https://example.com/realm"
    assert first.keys.discovery_url == "https://discovery.example.com/.well-known/openid-configuration"
    assert first.audiences == ("my-app", "my-other-app")
    assert (first.username, first.groups) == (PrefixedClaim("sub", "oidc:"), PrefixedClaim("groups", ""))
    assert first.uid == "oid"
    assert first.extra == (ExtraClaim("example.com/tenant", "tenant"), ExtraClaim("example.com/role", "x-role"))
    assert first.required == (("hd", "example.com"), ("empty", ""))
    assert (second.username, second.groups, second.uid) == (PrefixedClaim("email", ""), None, "")
    assert second.keys.discovery_url == "https://second.example.com/.well-known/openid-configuration"


def test_the_beta_version_and_no_issuers_are_fine() -> None:
    assert parse(HEAD.replace("/v1", "/v1beta1")).issuers == ()
    assert parse(HEAD + "jwt: []\n").issuers == ()


def test_a_slash_at_the_issuers_end_is_not_doubled() -> None:
    (issuer,) = parse(with_entries(changed("issuer.url", "https://example.com/r/"))).issuers
    assert issuer.keys.discovery_url == "https://example.com/r/.well-known/openid-configuration"
    assert issuer.keys.issuer == "https://example.com/r/"


def test_authorities_are_certificates_in_place(tmp_path: Path) -> None:
    pem = Authority(tmp_path, "issuer").pem.decode()
    (issuer,) = parse(with_entries(changed("issuer.certificateAuthority", pem))).issuers
    assert issuer.keys.authorities == pem
    assert pem not in repr(issuer)
    with pytest.raises(YamlError, match="in place"):
        parse(with_entries(changed("issuer.certificateAuthority", "/etc/ca.crt")))
    assert parse(with_entries(changed("issuer.certificateAuthority", ""))).issuers[0].keys.authorities is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("apiVersion: apiserver.config.k8s.io/v1", "apiVersion: apiserver.config.k8s.io/v1alpha1"),
        ("kind: AuthenticationConfiguration", "kind: AuthorizationConfiguration"),
        ("  enabled: false", "  enabled: true"),
        ("    discoveryURL:", "    discoveryUrl:"),
        ("    audienceMatchPolicy: MatchAny", "    audienceMatchPolicy: MatchAll"),
        ("    requiredValue: example.com", "    expression: claims.hd == 'example.com'"),
        ("  - claim: empty", "  - expression: claims.hd == 'example.com'"),
        ("    username:", "    userName:"),
        ('      prefix: "oidc:"', "      prefix: null"),
        ("      claim: oid", "      expression: claims.oid"),
        ("      valueExpression: claims.tenant", "      valueExpression: claims.tenant + 'x'"),
        ("    - key: example.com/tenant", "    - key: tenant"),
        ('    username: {claim: email, prefix: ""}', "    username: {expression: claims.email}"),
    ],
)
def test_a_refusal_names_file_and_line(line: str, told: str) -> None:
    number = [row for row, text in enumerate(WHOLE.splitlines(), 1) if text.startswith(line)][-1]
    broken = WHOLE.splitlines()
    broken[number - 1] = broken[number - 1].replace(line, told)
    with pytest.raises(YamlError, match=rf"^auth\.yaml:{number}: "):
        parse("\n".join(broken) + "\n")


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("issuer.url", "http://example.com", "https"),
        ("issuer.url", "HTTPS://example.com", "https"),
        ("issuer.url", "https://user:pw@example.com", "no user name"),
        ("issuer.url", "https://example.com?a=b", "no query"),
        ("issuer.url", "https://example.com?", "no query"),
        ("issuer.url", "https://example.com#a", "no fragment"),
        ("issuer.url", "https://", "not a URL"),
        ("issuer.url", "https://[bad", "not a URL"),
        ("issuer.url", "https://example.com:x", "not a URL"),
        ("issuer.url", "https://exa mple.com", "not a URL"),
        ("issuer.url", ..., "lacks url"),
        ("issuer.url", 7, "non-empty string"),
        ("issuer.discoveryURL", "https://example.com/", "must differ"),
        ("issuer.discoveryURL", "http://example.com/x", "https"),
        ("issuer.audiences", [], "must not be empty"),
        ("issuer.audiences", ["a", "a"], "twice"),
        ("issuer.audiences", [""], "non-empty"),
        ("issuer.audiences", ["a", "b"], "MatchAny"),
        ("issuer.audiences", ..., "lacks audiences"),
        ("issuer.egressSelectorType", "cluster", "not supported"),
        ("claimMappings.username", {"claim": "sub"}, "lacks prefix; write prefix: ''"),
        ("claimMappings.username", {"prefix": ""}, "lacks claim"),
        ("claimMappings.username", {"claim": "", "prefix": ""}, "non-empty"),
        ("claimMappings.username", {"claim": "sub", "prefix": "", "expression": "x"}, "CEL"),
        ("claimMappings.username", {"expression": "claims.sub"}, "use claim and prefix"),
        ("claimMappings.username", ..., "lacks username"),
        ("claimMappings", ..., "lacks claimMappings"),
        ("claimMappings.groups", {"claim": "groups"}, "lacks prefix"),
        ("claimMappings.groups", {"expression": "claims.roles.split(',')"}, "CEL"),
        ("claimMappings.uid", {"expression": "claims.sub"}, "CEL"),
        ("claimMappings.uid", {"claim": "sub", "prefix": ""}, "unknown field"),
        ("claimValidationRules", [{"requiredValue": "x"}], "lacks claim"),
        ("claimValidationRules", [{"claim": "a", "message": "m"}], "expression"),
        ("claimValidationRules", [{"claim": "a"}, {"claim": "a"}], "already"),
        ("claimValidationRules", [{"claim": "a", "requiredValue": True}], "string"),
        ("userValidationRules", [{"expression": "true"}], "CEL"),
    ],
)
def test_what_kubernetes_would_refuse_or_cel_would_decide_is_refused(path: str, value: Any, reason: str) -> None:
    with pytest.raises(YamlError, match=reason):
        parse(with_entries(changed(path, value)))


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("team", "domain"),
        ("Example.org/team", "lower-case"),
        ("example.org/Team", "lower-case"),
        ("example.org/", "domain"),
        ("-a.org/team", "domain"),
        ("kubernetes.io/x", "Kubernetes"),
        ("authentication.kubernetes.io/credential-id", "Kubernetes"),
        ("x.k8s.io/y", "Kubernetes"),
    ],
)
def test_an_extras_key_is_checked(key: str, reason: str) -> None:
    with pytest.raises(YamlError, match=reason):
        parse(with_entries(changed("claimMappings.extra", [{"key": key, "valueExpression": "claims.a"}])))


@pytest.mark.parametrize(
    ("expression", "claim"),
    [
        ("claims.team", "team"),
        (" claims.team ", "team"),
        ("claims['a b']", "a b"),
        ('claims["https://example.com/roles"]', "https://example.com/roles"),
        ("claims.team.name", None),
        ("claims.?team", None),
        ("'fixed'", None),
        ("claims", None),
        ("claims['a\\'b']", None),
        ("has(claims.team) ? claims.team : ''", None),
        ("user.team", None),
    ],
)
def test_an_extra_is_a_claim_and_no_other_expression(expression: str, claim: str | None) -> None:
    text = with_entries(changed("claimMappings.extra", [{"key": "example.org/team", "valueExpression": expression}]))
    if claim is None:
        with pytest.raises(YamlError, match=r"CEL expressions are not supported here, but for a claim's value"):
            parse(text)
    else:
        assert parse(text).issuers[0].extra == (ExtraClaim("example.org/team", claim),)


def test_what_is_there_twice_is_refused() -> None:
    with pytest.raises(YamlError, match=r"an issuer https://example\.com is there already"):
        parse(with_entries(ONE, copy.deepcopy(ONE)))
    twins = [copy.deepcopy(ONE), changed("issuer.url", "https://other.test")]
    for one in twins:
        one["issuer"]["discoveryURL"] = "https://same.test/x"
    with pytest.raises(YamlError, match="another issuer's"):
        parse(with_entries(*twins))
    extra = [{"key": "a.b/c", "valueExpression": "claims.a"}, {"key": "a.b/c", "valueExpression": "claims.b"}]
    with pytest.raises(YamlError, match="already"):
        parse(with_entries(changed("claimMappings.extra", extra)))


def test_issuers_that_are_known_otherwise_are_refused() -> None:
    with pytest.raises(YamlError, match="known to Kulvert already"):
        parse_authentication_configuration(with_entries(ONE), disallowed=["https://example.com"])


def test_there_are_at_most_64() -> None:
    entries = [changed("issuer.url", f"https://{number}.test") for number in range(65)]
    assert len(parse(with_entries(*entries[:64])).issuers) == 64
    with pytest.raises(YamlError, match="more than 64"):
        parse(with_entries(*entries))


def test_anonymous_users_are_refused_and_their_conditions_too() -> None:
    with pytest.raises(YamlError, match="no anonymous user"):
        parse(with_entries(ONE, anonymous={"enabled": True}))
    with pytest.raises(YamlError, match="conditions"):
        parse(with_entries(ONE, anonymous={"enabled": False, "conditions": [{"path": "/livez"}]}))
    assert parse(with_entries(ONE, anonymous={"enabled": False})).issuers


def test_empty_mappings_of_groups_and_uid_are_none() -> None:
    entry = changed("claimMappings.groups", {})
    entry["claimMappings"]["uid"] = {}
    (issuer,) = parse(with_entries(entry)).issuers
    assert (issuer.groups, issuer.uid) == (None, "")
