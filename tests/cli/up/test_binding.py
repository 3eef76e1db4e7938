"""The one object in a user's own cluster: made, adopted, removed; somebody else's is not touched."""

from __future__ import annotations

import pytest

from cli.failures import Failed
from cli.up.apiclient import Object, Reply
from cli.up.binding import BINDINGS, BY_HAND, PATH, Binding, manifest


class FakeApi:
    """Keeps one binding, as an API server does; `fails` maps a method to an answer."""

    def __init__(self, there: Object | None = None) -> None:
        self.there = there
        self.fails: dict[str, Reply] = {}
        self.sent: list[tuple[str, str]] = []
        self.uids = 0

    async def send(self, method: str, path: str, body: Object | None = None) -> Reply:
        self.sent.append((method, path))
        if method in self.fails:
            return self.fails[method]
        if method == "POST" and body is not None:
            return self._create(body)
        if method == "DELETE" and body is not None:
            return self._delete(body)
        return Reply(200, self.there) if self.there else Reply(404, {})

    def _create(self, body: Object) -> Reply:
        if self.there is not None:
            return Reply(409, {})
        self.uids += 1
        self.there = body | {"metadata": body["metadata"] | {"uid": str(self.uids)}}
        return Reply(201, self.there)

    def _delete(self, body: Object) -> Reply:
        if self.there is None:
            return Reply(404, {})
        if body["preconditions"]["uid"] != self.there["metadata"]["uid"]:
            return Reply(409, {})
        self.there = None
        return Reply(200, {})


def left_behind() -> Object:
    return manifest() | {"metadata": manifest()["metadata"] | {"uid": "old"}}


async def test_it_is_there_inside_and_gone_after() -> None:
    api = FakeApi()
    async with Binding(api) as binding:
        assert not binding.adopted
        assert api.there is not None
        assert api.there["subjects"][0] == {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "kulvert:admins",
        }  # fmt: skip
    assert api.there is None
    assert api.sent == [("POST", BINDINGS), ("DELETE", PATH)]


async def test_it_is_gone_after_a_failure_too() -> None:
    api = FakeApi()
    with pytest.raises(KeyError):
        async with Binding(api):
            raise KeyError
    assert api.there is None


async def test_one_that_was_left_behind_is_adopted_and_removed() -> None:
    api = FakeApi(left_behind())
    async with Binding(api) as binding:
        assert binding.adopted
    assert api.there is None


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"name": "kulvert-up-admins", "uid": "x"}},
        {"roleRef": {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}},
        {"subjects": []},
    ],
    ids=["label", "role", "subjects"],
)
async def test_a_foreign_one_is_an_error_and_stays(change: Object) -> None:
    foreign = left_behind() | change
    api = FakeApi(foreign)
    with pytest.raises(Failed, match="is not ours"):
        await Binding(api).__aenter__()
    assert api.there == foreign
    assert ("DELETE", PATH) not in api.sent


async def test_one_that_was_made_anew_meanwhile_stays() -> None:
    api = FakeApi()
    async with Binding(api):
        api.there = left_behind()
    assert api.there is not None


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "renew it"), (403, "must be a cluster administrator's"), (500, "refused the")]
)
async def test_a_refusal_says_what_to_do(status: int, reason: str) -> None:
    api = FakeApi()
    api.fails["POST"] = Reply(status, {"message": "no"})
    with pytest.raises(Failed, match=reason):
        await Binding(api).__aenter__()


async def test_what_cannot_be_removed_is_told_with_the_command() -> None:
    api = FakeApi()
    api.fails["DELETE"] = Reply(403, {"message": "no"})
    with pytest.raises(Failed, match=BY_HAND):
        async with Binding(api):
            pass
