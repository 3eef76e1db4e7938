"""Every bad credential of the zoo, by what is wrong with it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping

from cryptography.x509.oid import ExtendedKeyUsageOID

from auth.pki import CertificateAuthority
from tests.support.certificate_forge import forged
from tests.support.credentials_zoo import BEARER, CLUSTER_ACCOUNT, DAY, GROUP, PROTOCOL, Shown, Zoo


def bad(zoo: Zoo) -> dict[str, Shown]:
    """Everything that must be refused, by its name."""
    return dict(
        [
            *_malformed(zoo),
            *_certificates(zoo),
            *_front_proxies(zoo),
            *_bearers("token", _own_tokens(zoo)),
            *_bearers("oidc", zoo.oidc.bad() | {"a token in a token": zoo.oidc.headed(cty="JWT")}),
            *_bearers("hub", zoo.hub.bad() | zoo.hub_tokens),
            *_bearers("cluster", _cluster_tokens(zoo)),
            *_subprotocols(zoo),
        ]
    )


def _malformed(zoo: Zoo) -> Iterator[tuple[str, Shown]]:
    good, other = zoo.own.good(), zoo.own.good()
    values = {
        "empty": "", "basic": "Basic YWRtaW46YWRtaW4=", "a scheme alone": "Bearer", "blanks": "Bearer    ",
        "digest": 'Digest username="admin", response="x"', "negotiate": "Negotiate YWRtaW4=",
        "another scheme": f"Token {good}", "no scheme": good, "two tokens": f"Bearer {good} {other}",
        "two tokens with a comma": f"Bearer {good}, Bearer {other}", "a tab": f"Bearer\t{good}",
        "quoted": f'Bearer "{good}"', "non-ASCII": f"Bearer {good}é", "percent": f"Bearer {good}%00",
        "junk": f"Bearer {'x' * 15_000}", "dots": f"Bearer {'.' * 2_000}", "a JSON": 'Bearer {"sub":"admin"}',
    }  # fmt: skip
    yield "missing", Shown()
    for name, value in values.items():
        yield f"malformed: {name}", Shown((f"Authorization: {value}",))
    unreadable = {
        "NUL": (f"Authorization: Bearer {good}\0",), "a control byte": (f"Authorization: Bearer {good}\x01",),
        "a line feed": (f"Authorization: Bearer\n {good}",), "folded": ("Authorization: Bearer", f" {good}"),
        "a blank before the colon": (f"Authorization : Bearer {good}",),
    }  # fmt: skip
    for name, lines in unreadable.items():
        yield f"malformed: {name}", Shown(lines, codes=(400,))
    yield (
        "malformed: two headers",
        Shown((f"Authorization: Bearer {good}", f"Authorization: Bearer {other}"), codes=(400, 401)),
    )
    yield "malformed: 64 KiB", Shown((f"Authorization: Bearer {'x' * 65_536}",), codes=(431, 401))
    elsewhere = {
        "a cookie": f"Cookie: token={good}; session={good}", "a proxy's": f"Proxy-Authorization: Bearer {good}",
        "X-Forwarded": f"X-Forwarded-Access-Token: {good}", "underscores": f"Authorization_: Bearer {good}",
        "an identity": "Impersonate-User: admin", "a front proxy's user": "X-Remote-User: admin",
        "a certificate's": "X-Forwarded-Client-Cert: Subject=\"CN=admin,O=kulvert:admins\"",
    }  # fmt: skip
    for name, line in elsewhere.items():
        yield f"elsewhere: {name}", Shown((line,))


def _certificates(zoo: Zoo) -> Iterator[tuple[str, Shown]]:
    now, users, groups = zoo.now, ["zoo"], [GROUP]
    impostor = CertificateAuthority.create("kulvert", now)
    pairs = {
        "of an unknown CA": zoo.unknown.issue_client("zoo", groups, now, DAY),
        "of another CA of the same name": impostor.issue_client("zoo", groups, now, DAY),
        "expired": zoo.platform.issue_client("zoo", groups, now - 2 * DAY, DAY),
        "not yet valid": zoo.platform.issue_client("zoo", groups, now + DAY, DAY),
        "company's, expired": zoo.company.issue_client("zoo", groups, now - 2 * DAY, DAY),
        "a server's": zoo.platform.issue_server(["localhost"], now, DAY),
        "an agent's": zoo.agent_certificate("recorded", "uid"),
        "for servers": forged(zoo.platform, users, groups, now, purposes=[ExtendedKeyUsageOID.SERVER_AUTH]),
        "an authority's": forged(zoo.platform, users, groups, now, is_authority=True),
        "with an unknown critical extension": forged(zoo.platform, users, groups, now, unknown_critical=True),
        "for no purpose": forged(zoo.platform, users, groups, now, purposes=[]),
        "of nobody": forged(zoo.platform, [], groups, now),
        "of two users": forged(zoo.platform, ["zoo", "admin"], groups, now),
        "revoked by its number": zoo.revoked,
        "revoked with its user": zoo.withdrawn,
        "on its authority's list": zoo.gone,
        "of an authority whose list has lapsed": zoo.lapsed.issue_client("zoo", groups, now, DAY),
    }
    for name, pair in pairs.items():
        yield f"certificate: {name}", Shown(pair=pair, tls=True)
    beside = (f"Authorization: Bearer {zoo.own.good()}",)
    yield "certificate: revoked, beside a good token", Shown(beside, zoo.revoked)


def _front_proxies(zoo: Zoo) -> Iterator[tuple[str, Shown]]:
    proxy = zoo.front.issue_client("front-proxy-client", [GROUP], zoo.now, DAY)
    user, group = "X-Remote-User: zoo", f"X-Remote-Group: {GROUP}"
    headers: Mapping[str, tuple[str, ...]] = {
        "without headers": (),
        "an empty user": ("X-Remote-User:", group),
        "groups alone": (group,),
        "two users": (user, "X-Remote-User: admin", group),
        "underscores": ("X_Remote_User: zoo", group),
        "underscores beside": (user, "X_Remote_User: admin", group),
        "named in Connection": (user, group, "Connection: X-Remote-User"),
        "two uids": (user, group, "X-Remote-Uid: 1", "X-Remote-Uid: 2"),
        "not UTF-8": ("X-Remote-User: \xff", group),
    }
    for name, lines in headers.items():
        yield f"front-proxy: {name}", Shown(lines, proxy)
    pairs = {
        "expired": zoo.front.issue_client("front-proxy-client", [], zoo.now - 2 * DAY, DAY),
        "of another name": zoo.front.issue_client("somebody", [], zoo.now, DAY),
        "of two names": forged(zoo.front, ["front-proxy-client", "x"], [], zoo.now),
        "of an unknown CA": zoo.unknown.issue_client("front-proxy-client", [], zoo.now, DAY),
        "a server's": zoo.front.issue_server(["front-proxy-client"], zoo.now, DAY),
    }
    for name, pair in pairs.items():
        yield f"front-proxy: {name}", Shown((user, group), pair, tls=True)
    yield "front-proxy: beside a good token, without headers", Shown(Shown.bearer(zoo.own.good()).lines, proxy)


def _own_tokens(zoo: Zoo) -> dict[str, str]:
    own, now = zoo.own, int(zoo.now)
    return own.bad() | {
        "revoked": own.good(jti="a-revoked-jti"),
        "revoked with its user": own.good(sub="withdrawn"),
        "that lives too long": own.good(exp=now + 10 * 86_400),
        "of another type": own.headed(typ="JWT"),
        "without a kid": own.headed(kid=None),
        "of nobody": own.good(sub=""),
        "with groups that are text": own.good(groups="kulvert:admins"),
        "of 9 KiB": own.good(uid="x" * 9_000),
    }


def _cluster_tokens(zoo: Zoo) -> dict[str, str]:
    cluster = zoo.cluster
    subject = f"system:serviceaccount:default:{CLUSTER_ACCOUNT}"
    return cluster.bad() | {
        "without a kid": cluster.headed(kid=None),
        "of another subject than it is bound to": cluster.good(sub="system:serviceaccount:kube-system:admin"),
        "a token in a token": cluster.headed(cty="JWT"),
        "of the old kind": cluster.good(**{"kubernetes.io": None, "sub": subject}),
        **{f"of {name}": token for name, token in zoo.foreign_tokens.items()},
    }


def _subprotocols(zoo: Zoo) -> Iterator[tuple[str, Shown]]:
    good, bad = zoo.own.good(), zoo.own.bad()["wrongly signed"]
    told, other, v5 = BEARER + _base64url(good), BEARER + _base64url(bad), "v5.channel.k8s.io"
    values = {
        "alone": told, "twice": f"{told}, {told}, {v5}", "two tokens": f"{told}, {other}, {v5}",
        "wrongly signed": f"{other}, {v5}", "padded": f"{BEARER}eA==, {v5}", "empty": f"{BEARER}, {v5}",
        "standard base64": f"{BEARER}a+b/, {v5}", "not UTF-8": f"{BEARER}{_base64url('')}_w, {v5}",
        "not encoded": f"{BEARER}{good}, {v5}", "quoted": f'"{told}", {v5}', "upper case": f"{told.upper()}, {v5}",
        "of two lengths": f"{told}A, {v5}",
    }  # fmt: skip
    for name, value in values.items():
        yield f"subprotocol: {name}", Shown((PROTOCOL + value,))
    yield "subprotocol: beside a bad header", Shown((f"{PROTOCOL}{told}, {v5}", f"Authorization: Bearer {bad}"))


def _bearers(kind: str, tokens: Mapping[str, str]) -> Iterator[tuple[str, Shown]]:
    for name, token in tokens.items():
        yield f"{kind}: {name}", Shown.bearer(token)


def _base64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
