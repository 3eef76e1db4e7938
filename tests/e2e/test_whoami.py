"""`kubectl auth whoami` as the judge: what the cluster saw is exactly what the grant says, for every authenticator and
every form of a grant. The whole of userInfo is compared: name, uid, groups in their order, extras.

alpha is the hub too. beta's owner has allowed its agent more: protected identities, and pass-through.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from auth.pki import CertificateAuthority
from tests.e2e.conftest import _bind as bind_admins
from tests.e2e.conftest import _run as run_to_end
from tests.support.cluster import Cluster
from tests.support.cluster_config import write_kubeconfig
from tests.support.cluster_helpers import service_account_token
from tests.support.credentials_zoo import reported
from tests.support.dex import Dex, Person
from tests.support.hostile_client import connected, review
from tests.support.hostile_platform import client_context
from tests.support.judged import (
    ACCOUNT,
    CREDENTIAL,
    EVERYBODY,
    ORIGINAL,
    Judged,
    Known,
    fingerprint,
    seen_by,
    settings_of,
)
from tests.support.platform import ADMINS, Grant, Platform


@dataclass(frozen=True)
class Form:
    """A grant's `impersonate`, and what the cluster has to see by it; None: nobody."""

    impersonate: Mapping[str, Any] | None
    seen: Callable[[Known], Known | None]
    more: Mapping[str, Any] = field(default_factory=dict)


MAP = {"team-a": "mapped", "dex:team-a": "mapped", "system:serviceaccounts:default": "mapped"}
FIRST = tuple(MAP)


def _mapped(known: Known, rest: Callable[[str], str]) -> Known:
    groups = ["mapped" if one in FIRST else rest(one) for one in known.groups]
    extra = {**known.extra, ORIGINAL: [known.user]}
    return replace(known, groups=tuple(dict.fromkeys(filter(None, groups))), extra=extra)


FORMS = {
    "oneself": Form(None, lambda known: known),
    "prefixes": Form(
        {"userPrefix": "p:", "groupPrefix": "g:"},
        lambda known: known.called(f"p:{known.user}", *(f"g:{one}" for one in known.groups)),
    ),
    "a-map": Form({"groupMap": MAP, "dropUnmapped": True}, lambda known: _mapped(known, lambda _: "")),
    "a-map-and-a-prefix": Form(
        {"groupMap": MAP, "groupPrefix": "x:"}, lambda known: _mapped(known, lambda one: f"x:{one}")
    ),
    "groups-alone": Form(
        {"groups": ["viewers"]},
        lambda known: replace(known, groups=("viewers",), extra={**known.extra, ORIGINAL: [known.user]}),
    ),
    "a-static-identity": Form({"user": "robot", "groups": ["robots"]}, lambda known: known.called("robot", "robots")),
    "a-static-user": Form({"user": "somebody"}, lambda known: known.called("somebody")),
    "a-protected-group": Form({"user": "robot", "groups": ["system:masters"]}, lambda _: None),
    "a-protected-user": Form({"user": "system:kube-scheduler", "groups": []}, lambda _: None),
}
DELEGATES: dict[str, dict[str, Any]] = {
    "delegate": {"allowUserImpersonation": True},
    "limited": {"allowUserImpersonation": {"users": ["bob*"], "groups": ["dev"]}},
    "allowed": {"impersonate": {"groups": ["system:masters"]}, "allowProtected": ["system:masters"]},
}
NAMES = (*FORMS, *DELEGATES)
HUB_ALLOWED = "hub-allowed"


def _subjects(name: str) -> list[dict[str, str]]:
    users = [{"kind": "User", "name": one} for one in (name, f"dex:{name}")]
    return [*users, {"kind": "ServiceAccount", "namespace": "default", "name": name}]


def _grants() -> Iterator[Grant]:
    for name, form in FORMS.items():
        told = {"impersonate": copy.deepcopy(form.impersonate)} if form.impersonate is not None else {}
        yield {"name": f"grant-{name}", "clusters": ["*"], "subjects": _subjects(name), **told}
    for name, more in DELEGATES.items():
        yield {"name": f"grant-{name}", "clusters": ["*"], "subjects": _subjects(name), **copy.deepcopy(more)}
    yield {
        "name": f"grant-{HUB_ALLOWED}", "clusters": ["*"], "subjects": _subjects(HUB_ALLOWED),
        "allowProtected": [ACCOUNT + HUB_ALLOWED],
    }  # fmt: skip
    resident = {"kind": "ServiceAccount", "cluster": "beta", "namespace": "default", "name": "resident"}
    yield {"name": "grant-resident", "clusters": ["beta"], "subjects": [resident], "passThrough": True}
    yield ADMINS


@pytest.fixture(scope="module")
def judged(
    clusters: tuple[Cluster, Cluster], testbed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Judged]:
    """Everything is started once."""
    directory = tmp_path_factory.mktemp("whoami")
    dex = Dex(testbed, people=[Person(name, ("team-a", "team-b")) for name in NAMES])
    front = CertificateAuthority.create("front proxies", time.time())
    served = Platform(directory / "platform", _grants(), settings=settings_of(directory, dex, front, clusters[0]))
    try:
        run_to_end(_start(served, dex, clusters))
        yield Judged(served, dex, clusters[0], front)
    finally:
        run_to_end(_stop(served, dex))


async def _start(served: Platform, dex: Dex, pair: tuple[Cluster, Cluster]) -> None:
    await bind_admins(pair)
    await dex.start()
    await served.start_server()
    await served.start_agent(pair[0], allowPassThrough=True)
    allowed = ["system:masters", ACCOUNT + HUB_ALLOWED]
    await served.start_agent(pair[1], allowProtected=allowed, allowPassThrough=True)
    await reported(served.state / "clusters.db", [cluster.name for cluster in pair])


async def _stop(served: Platform, dex: Dex) -> None:
    await served.stop()
    await dex.stop()


# --- as the grant says


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["certificate", "token", "oidc", "hub"])
async def test_the_cluster_sees_what_the_grant_says(judged: Judged, kind: str, form: str) -> None:
    user, known = await judged.kinds[kind](form)
    told = FORMS[form]
    expected = told.seen(known)
    if expected is not None and expected.user.startswith("system:serviceaccount:"):
        expected = None  # only what a grant names by allowProtected is let through unchanged
    result = await judged.whoami(user)
    if expected is None:
        assert "protected" in result.err, result
        assert "Kulvert's gateway does not let you" in result.err
    else:
        assert seen_by(result) == expected.info()
    notes = await judged.notes(known.user)
    assert notes["kulvert.dev/decision"] == ("allow" if expected else "forbid")
    assert f"grant-{form}" in (notes.get("kulvert.dev/rule"), *notes.get("kulvert.dev/reason", "").split("'"))


@pytest.mark.parametrize("form", NAMES)
async def test_explain_names_the_rule_that_the_audit_record_names(judged: Judged, form: str) -> None:
    user, known = await judged.by_certificate(form)
    result = await judged.whoami(user)
    found, notes = await judged.explained(known, "beta"), await judged.notes(form)
    assert (found["allowed"], found["rule"]) == (notes["kulvert.dev/decision"] == "allow", f"grant-{form}")
    if result.returncode:
        assert found["reason"] == notes["kulvert.dev/reason"]
        assert notes.get("kulvert.dev/rule", found["rule"]) == found["rule"]
    else:
        assert notes["kulvert.dev/rule"] == found["rule"]
        seen = seen_by(result)
        assert (found["impersonated"]["user"], [*found["impersonated"]["groups"], EVERYBODY]) == (
            seen["username"], seen["groups"],
        )  # fmt: skip


async def test_explain_and_the_audit_record_agree_that_nobody_is_let_in(judged: Judged) -> None:
    user, known = await judged.by_certificate("stranger")
    result = await judged.whoami(user)
    assert "no grant lets" in result.err
    found = await judged.explained(known, "beta")
    assert (found["allowed"], found.get("rule", "")) == (False, "")
    assert "kulvert.dev/rule" not in await judged.notes("stranger")


# --- as somebody else


@pytest.mark.parametrize("kind", ["certificate", "token", "oidc"])
async def test_as_somebody_else_by_a_grant(judged: Judged, kind: str) -> None:
    user, known = await judged.kinds[kind]("delegate")
    assert seen_by(await judged.whoami(user)) == known.info()
    await judged.record(known.user)  # it may come late, and is not to be taken for the next one's
    for flags, expected in (
        (("--as", "bob"), known.called("bob")),
        (("--as", "bob", "--as-group", "dev", "--as-group", "ops"), known.called("bob", "dev", "ops")),
        (("--as", "bob", "--as-uid", "7"), known.called("bob", uid="7")),
        (("--as", "bob", "--as-group", "dev", "--as-uid", "7"), known.called("bob", "dev", uid="7")),
    ):
        assert seen_by(await judged.whoami(user, *flags)) == expected.info(), flags
        record = await judged.record(known.user)
        assert record["impersonatedUser"]["username"] == "bob"
        assert record["annotations"]["kulvert.dev/rule"] == "grant-delegate"


@pytest.mark.parametrize("kind", ["certificate", "token", "oidc"])
async def test_as_whom_a_grant_names_and_nobody_else(judged: Judged, kind: str) -> None:
    user, known = await judged.kinds[kind]("limited")
    result = await judged.whoami(user, "--as", "bob-7", "--as-group", "dev")
    assert seen_by(result) == known.called("bob-7", "dev").info()
    for flags in (
        ("--as", "carol"), ("--as", "bob", "--as-group", "ops"), ("--as", "bob", "--as-uid", "7"),
        ("--as", "bob", "--as-group", "dev", "--as-group", "system:masters"),
    ):  # fmt: skip
        await _refused(judged, user, flags)


@pytest.mark.parametrize("kind", ["certificate", "token", "oidc"])
async def test_as_nobody_without_a_grant(judged: Judged, kind: str) -> None:
    user, _ = await judged.kinds[kind]("oneself")
    for flags in (("--as", "bob"), ("--as", "oneself"), ("--as", "bob", "--as-group", "dev", "--as-uid", "7")):
        await _refused(judged, user, flags)


PROTECTED: tuple[tuple[str, ...], ...] = (
    ("--as", "system:admin"), ("--as", "system:kube-controller-manager"), ("--as", "system:node:node-1"),
    ("--as", "system:serviceaccount:kube-system:default"), ("--as", "system:serviceaccount:kulvert:kulvert-agent"),
    ("--as", "bob", "--as-group", "system:masters"), ("--as", "bob", "--as-group", "system:nodes"),
    ("--as", "bob", "--as-group", "kubeadm:cluster-admins"), ("--as", "bob", "--as-group", "SYSTEM:MASTERS"),
)  # fmt: skip


async def test_protected_names_are_nobodys_to_take(judged: Judged) -> None:
    user, _ = await judged.by_certificate("delegate")
    for flags in PROTECTED:
        await _refused(judged, user, flags)


async def test_a_protected_group_needs_the_grant_and_the_clusters_owner(judged: Judged) -> None:
    user, known = await judged.by_certificate("allowed")
    extra = {**known.extra, ORIGINAL: [known.user]}
    expected = replace(known, groups=("system:masters",), extra=extra)
    assert seen_by(await judged.whoami(user, cluster="beta")) == expected.info()
    refused = await judged.whoami(user, cluster="alpha")
    assert "agent refuses this request by its own policy" in refused.err, refused


async def test_a_service_account_of_the_hub_as_itself_needs_both_too(judged: Judged) -> None:
    user, known = await judged.by_hub(HUB_ALLOWED)
    assert seen_by(await judged.whoami(user, cluster="beta")) == known.info()


async def test_a_service_account_of_the_hub_reaches_the_hub_itself(judged: Judged) -> None:
    """Its keys are pinned for the cluster alpha; its token is for us, and not for that cluster's API server."""
    user, known = await judged.by_hub("prefixes")
    expected = FORMS["prefixes"].seen(known)
    assert expected is not None
    assert seen_by(await judged.whoami(user, cluster="alpha")) == expected.info()


async def test_a_token_for_both_is_the_hubs_at_every_path_in_every_order(judged: Judged, cluster_a: Cluster) -> None:
    for order in (("alpha", "beta"), ("beta", "alpha")):
        audiences = ("kulvert", "https://kubernetes.default.svc")
        token = await service_account_token(cluster_a, "default", "prefixes", audiences=audiences)
        for cluster in order:
            seen = seen_by(await judged.whoami({"token": token}, cluster=cluster))
            assert seen["username"] == f"p:{ACCOUNT}prefixes", (order, cluster)


# --- other ways in


@pytest.mark.parametrize("form", FORMS)
async def test_by_a_front_proxy(judged: Judged, form: str) -> None:
    known = Known(form, ("team-a", "team-b"), "u-1", {"scopes": ["a", "b"], "example.org/team": ["x y"]})
    lines = (
        f"X-Remote-User: {form}", "X-Remote-Group: team-a", "X-Remote-Group: team-b", "X-Remote-Uid: u-1",
        "X-Remote-Extra-Scopes: a", "X-Remote-Extra-Scopes: b", "X-Remote-Extra-Example.org%2FTeam: x y",
    )  # fmt: skip
    judged.mark()
    proxy = judged.front.issue_client("front-proxy-client", ["not-looked-at"], time.time(), 3600)
    async with connected(
        judged.platform.port, client_context(judged.platform.ca, proxy, judged.platform.directory)
    ) as client:
        await client.say(review("beta", *lines))
        answer = await client.answer("POST")
    expected = FORMS[form].seen(known)
    if expected is None:
        assert answer.status == 403
    else:
        assert answer.json["status"]["userInfo"] == expected.info()
    assert (await judged.notes(form))["kulvert.dev/authenticator"] == "front-proxy"


async def test_nobody_elses_headers_name_a_user(judged: Judged) -> None:
    """A user's certificate beside X-Remote-*: the user is the certificate's."""
    issued = judged.platform.certificate("oneself", ["team-a"])
    lines = "X-Remote-User: delegate", "X-Remote-Group: system:masters", "X-Remote-Extra-Scopes: all"
    context = client_context(judged.platform.ca, issued, judged.platform.directory)
    async with connected(judged.platform.port, context) as client:
        await client.say(review("beta", *lines))
        info = (await client.answer("POST")).json["status"]["userInfo"]
    assert info == Known("oneself", ("team-a",), extra={CREDENTIAL: [fingerprint(issued)]}).info()


async def test_a_service_account_of_the_cluster_itself(judged: Judged, cluster_b: Cluster) -> None:
    """Passed through: the cluster sees exactly what it sees without Kulvert."""
    token = await service_account_token(cluster_b, "default", "resident")
    path = judged.platform.directory / "direct.kubeconfig"
    write_kubeconfig(path, "beta", cluster_b.server, cluster_b.ca_pem, {"token": token})
    direct = await cluster_b.kubectl("auth", "whoami", "-o", "json", kubeconfig=path)
    assert seen_by(await judged.whoami({"token": token})) == seen_by(direct)
    notes = await judged.notes(f"{ACCOUNT}resident")
    assert (notes["kulvert.dev/rule"], notes["kulvert.dev/passed-through"]) == ("grant-resident", "true")
    found = await judged.explained(Known(f"{ACCOUNT}resident", ()), "beta", "--pass-through")
    assert (found["rule"], found["passThrough"]) == ("grant-resident", True)
    await _refused(judged, {"token": token}, ("--as", "bob"))
    assert "does not know you" in (await judged.whoami({"token": token}, cluster="alpha")).err


async def test_a_cluster_whose_owner_allows_no_pass_through(judged: Judged, cluster_a: Cluster) -> None:
    """Its agent does not even report its keys: the token is nobody's."""
    token = await service_account_token(cluster_a, "default", "resident")
    await judged.platform.start_agent(cluster_a, "closed")
    assert "does not know you" in (await judged.whoami({"token": token}, cluster="closed")).err
    await judged.platform.stop_agent("closed")


async def _refused(judged: Judged, user: dict[str, Any], flags: tuple[str, ...]) -> None:
    result = await judged.whoami(user, *flags)
    assert result.returncode != 0, flags
    assert "Kulvert's gateway does not let you do this" in result.err, (flags, result)
