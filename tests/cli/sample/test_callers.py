"""Authentication and impersonation, asked over the wire."""

from __future__ import annotations

from dataclasses import replace

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from cli.sample import Caller, SampleServer
from cli.sample.callers import impersonated, impersonation_checks
from cli.sample.status import ApiError
from tests.cli.sample.client import NOBODY, PODS, Client, Headers, connect
from tests.cli.sample.conftest import ROOT_TOKEN

WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


@pytest.mark.parametrize("token", [None, "wrong", ""])
@pytest.mark.parametrize("path", ["/readyz", "/version", PODS, f"{PODS}/demo/exec?command=id&stdout=1"])
async def test_without_the_token_nothing_is_answered(client: Client, token: str | None, path: str) -> None:
    status, body = await replace(client, token=token).ask("GET", path)
    assert (status, body["reason"]) == (401, "Unauthorized")


async def test_all_that_is_impersonated_arrives(client: Client) -> None:
    user: Headers = (
        ("Impersonate-User", "ada"),
        ("Impersonate-Group", "one"),
        ("Impersonate-Group", "two"),
        ("Impersonate-Uid", "u-1"),
        ("Impersonate-Extra-example.org%2Fscopes", "a"),
        ("Impersonate-Extra-example.org%2Fscopes", "b"),
    )
    review = await client.to_be(user).create(WHOAMI, {})
    assert review["status"]["userInfo"] == {
        "username": "ada",
        "uid": "u-1",
        "groups": ["one", "two", "system:authenticated"],
        "extra": {"example.org/scopes": ["a", "b"]},
    }


async def test_without_impersonation_it_is_the_agent(client: Client) -> None:
    review = await client.to_be(()).create(WHOAMI, {})
    assert review["status"]["userInfo"]["username"] == "system:serviceaccount:kulvert:kulvert-agent"


async def test_a_further_token_is_another_caller(client: Client) -> None:
    root = replace(client, token=ROOT_TOKEN, user=())
    assert (await root.create(WHOAMI, {}))["status"]["userInfo"]["username"] == "root"


async def test_groups_without_a_user_are_an_error_not_ignored(client: Client) -> None:
    status, body = await client.to_be((("Impersonate-Group", "kulvert:admins"),)).ask("GET", PODS)
    assert (status, body["reason"]) == (500, "InternalError")


async def test_who_may_not_impersonate_is_told_so() -> None:
    eve = Caller("eve", ("system:authenticated",))
    async with SampleServer(callers={"plain": eve}) as server, connect(server, "plain", NOBODY) as client:
        status, body = await client.ask("GET", PODS)
    assert status == 403
    assert body["message"] == (
        'users "bob" is forbidden: User "eve" cannot impersonate resource "users" in API group "" at the cluster scope'
    )


def test_a_service_account_gets_its_groups() -> None:
    caller = impersonated(headers(("Impersonate-User", "system:serviceaccount:ns:sa")))
    assert caller is not None
    assert caller.groups == ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated")


def test_the_anonymous_user_is_not_authenticated() -> None:
    caller = impersonated(headers(("Impersonate-User", "system:anonymous")))
    assert caller is not None
    assert caller.groups == ("system:unauthenticated",)


def test_every_value_is_a_question_of_its_own() -> None:
    asked = impersonation_checks(
        headers(
            ("Impersonate-User", "system:serviceaccount:ns:sa"),
            ("Impersonate-Group", "g"),
            ("Impersonate-Uid", "1"),
            ("Impersonate-Extra-k", "v"),
        )
    )
    assert [(a.full_resource, a.namespace, a.name) for a in asked] == [
        ("serviceaccounts", "ns", "sa"),
        ("groups", "", "g"),
        ("uids", "", "1"),
        ("userextras/k", "", "v"),
    ]


def test_two_users_are_refused() -> None:
    with pytest.raises(ApiError):
        impersonated(headers(("Impersonate-User", "a"), ("Impersonate-User", "b")))
