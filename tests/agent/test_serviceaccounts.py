"""Managed service accounts at the agent: none but its own, none against its owner's rules, and none by default."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from agent.policyrules import Lists, RuleSettings
from agent.serviceaccounts import DELETE, TOKEN, ServiceAccounts
from tests.agent.apiserver import Client, Script
from tests.agent.conftest import Before
from tunnel.calls import CallFailed

ORDER: dict[str, Any] = {"namespace": "ci", "name": "deployer", "audiences": [], "seconds": 3600}
LABELS = {"app.kubernetes.io/managed-by": "kulvert", "kulvert.dev/managed-serviceaccount": "true"}
OURS = {"metadata": {"uid": "u-1", "labels": LABELS}}
AGENTS = {"metadata": {"uid": "u-2", "labels": {"app.kubernetes.io/managed-by": "kulvert"}}}
THEIRS = {"metadata": {"uid": "u-3", "labels": {"app.kubernetes.io/managed-by": "helm"}}}


def token(uid: str = "u-1") -> str:
    claims = json.dumps({"kubernetes.io": {"serviceaccount": {"uid": uid}}}).encode()
    return "e30." + base64.urlsafe_b64encode(claims).rstrip(b"=").decode() + ".c2ln"


def issued(uid: str = "u-1") -> dict[str, Any]:
    return {"status": {"token": token(uid), "expirationTimestamp": "2030-01-01T00:00:00Z"}}


class ApiServer:
    """Answers by `METHOD path`; what it is not told is a 404. It writes down what it was asked."""

    def __init__(self, **answers: tuple[int, object]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, bytes]] = []

    def script(self) -> Script:
        async def script(client: Client) -> None:
            while True:
                head = await client.head()
                body = await client.body(head) if b"content-length: " in head else b""
                method, target, _ = head.split(b" ", 2)
                kind = "token" if target.endswith(b"/token") else method.decode().lower()
                self.asked.append((f"{method.decode()} {target.decode()}", body))
                code, answer = self.answers.get(kind, (404, {}))
                content = json.dumps(answer).encode()
                await client.say(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (code, len(content), content))

        return script


async def answer(
    before: Before, api: ApiServer, method: str = TOKEN, rules: RuleSettings | None = None, enabled: bool = True,
    **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    async with before(api.script()) as world:
        accounts = ServiceAccounts(world.pool, rules.made() if rules else None, enabled, 2.0)
        return await accounts.methods()[method](ORDER | changes)


async def refused(before: Before, api: ApiServer, **more: Any) -> str:
    with pytest.raises(CallFailed) as caught:
        await answer(before, api, **more)
    assert "c2ln" not in str(caught.value)
    return caught.value.reason


async def test_a_service_account_is_made_with_our_label_and_a_token_given(before: Before) -> None:
    api = ApiServer(post=(201, OURS), token=(201, issued()))
    given = await answer(before, api)
    assert given == {"token": token(), "expires": 1893456000.0, "uid": "u-1"}
    assert [line for line, _ in api.asked] == [
        "GET /api/v1/namespaces/ci/serviceaccounts/deployer",
        "POST /api/v1/namespaces/ci/serviceaccounts",
        "POST /api/v1/namespaces/ci/serviceaccounts/deployer/token",
    ]
    made, asked = (json.loads(body) for _, body in api.asked[1:])
    assert made["metadata"]["labels"] == LABELS
    assert made["automountServiceAccountToken"] is False
    assert asked["spec"] == {"audiences": [], "expirationSeconds": 3600}


async def test_one_that_is_there_already_gets_another_token(before: Before) -> None:
    api = ApiServer(get=(200, OURS), token=(201, issued()))
    assert (await answer(before, api))["uid"] == "u-1"
    assert len(api.asked) == 2


@pytest.mark.parametrize(
    "found", [THEIRS, AGENTS, {"metadata": {"uid": "u"}}, {"metadata": {"uid": "u", "labels": 5}}, {}]
)
@pytest.mark.parametrize("method", [TOKEN, DELETE])
async def test_of_one_that_somebody_else_has_made_nothing_is_given_and_nothing_deleted(
    found: object, method: str, before: Before
) -> None:
    api = ApiServer(get=(200, found), token=(201, issued()), delete=(200, {}))
    assert await refused(before, api, method=method) == "foreign"
    assert len(api.asked) == 1


async def test_the_agents_own_is_never_given_out_whatever_it_is_labelled(before: Before) -> None:
    api = ApiServer(get=(200, OURS), token=(201, issued()), delete=(200, {}))
    own = base64.urlsafe_b64encode(b'{"sub": "system:serviceaccount:kulvert:agent"}').rstrip(b"=")
    async with before(api.script(), token=b"e30." + own + b".c2ln") as world:
        methods = ServiceAccounts(world.pool, None, True, 2.0).methods()
        for method in methods.values():
            with pytest.raises(CallFailed, match="own"):
                await method(ORDER | {"namespace": "kulvert", "name": "agent"})
        assert not api.asked
        assert await methods[TOKEN](ORDER)


async def test_one_that_was_replaced_in_between_gives_no_token(before: Before) -> None:
    api = ApiServer(get=(200, OURS), token=(201, issued("u-of-another")))
    assert await refused(before, api) == "changed"


async def test_nothing_is_done_unless_the_owner_of_the_cluster_wants_it(before: Before) -> None:
    api = ApiServer(get=(200, OURS), token=(201, issued()))
    assert await refused(before, api, enabled=False) == "disabled"
    assert await refused(before, api, rules=RuleSettings(read_only=True)) == "policy"
    closed = RuleSettings(namespaces=Lists(deny=("ci",)))
    assert await refused(before, api, rules=closed) == "policy"
    assert await refused(before, api, rules=closed, method=DELETE) == "policy"
    for rules in (
        RuleSettings(verbs=Lists(deny=("create", "delete"))),
        RuleSettings(verbs=Lists(allow=("get",))),
        RuleSettings(paths=Lists(deny=("*/serviceaccounts/*",))),
    ):
        assert await refused(before, api, rules=rules) == "policy"
        assert await refused(before, api, rules=rules, method=DELETE) == "policy"
    assert not api.asked
    assert (await answer(before, api, rules=RuleSettings(verbs=Lists(deny=("delete",)))))["token"] == token()


@pytest.mark.parametrize(
    "changes",
    [
        {"namespace": "a/b"}, {"namespace": ".."}, {"namespace": ""}, {"namespace": None}, {"name": "a/../b"},
        {"name": "a..b"}, {"name": "A"}, {"name": "x" * 300}, {"name": 5}, {"seconds": 599}, {"seconds": 90_000},
        {"seconds": True}, {"seconds": "3600"}, {"seconds": None}, {"audiences": "x"}, {"audiences": [""]},
        {"audiences": ["a\n"]}, {"audiences": ["x"] * 9},
    ],
)  # fmt: skip
async def test_a_malformed_order_gets_nowhere(changes: dict[str, Any], before: Before) -> None:
    api = ApiServer()
    assert await refused(before, api, **changes) == "invalid"
    assert not api.asked


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"get": (403, {})}, "forbidden"),
        ({"get": (500, {})}, "apiserver"),
        ({"post": (404, {})}, "namespace"),
        ({"post": (403, {})}, "forbidden"),
        ({"get": (200, OURS), "token": (403, {})}, "forbidden"),
        ({"get": (200, OURS), "token": (201, {"status": {}})}, "apiserver"),
        ({"get": (200, OURS), "token": (201, {"status": {"token": 5, "expirationTimestamp": "x"}})}, "apiserver"),
        ({"get": (200, OURS), "token": (201, [])}, "apiserver"),
    ],
)
async def test_what_the_api_server_refuses_is_told_in_our_words(
    answers: dict[str, tuple[int, object]], reason: str, before: Before
) -> None:
    assert await refused(before, ApiServer(**answers)) == reason


async def test_a_deletion_is_of_that_very_one(before: Before) -> None:
    api = ApiServer(get=(200, OURS), delete=(200, {}))
    assert await answer(before, api, method=DELETE) == {"deleted": True}
    assert json.loads(api.asked[1][1])["preconditions"] == {"uid": "u-1"}
    assert await answer(before, ApiServer(), method=DELETE) == {"deleted": False}
