"""Records as Secrets: what an answer of the hub means. With a real hub: tests/e2e/test_mirror.py."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from kubernetes_asyncio import client

from gateway.hub.objects import Answer, HubObjects, HubUnavailable, HubUnreachable
from gateway.mirror import keysecret, records
from gateway.mirror.keysecret import KeySecret
from gateway.mirror.records import Record, RecordConflict, RecordsUnavailable, SecretRecords


class Hub(HubObjects):
    """Gives one answer, or fails."""

    def __init__(self, answer: Answer | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, Any]] = []

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, content: str = "application/json"
    ) -> Answer:
        self.asked.append((method, path, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def secret(**fields: Any) -> dict[str, Any]:
    metadata = {"name": "n", "resourceVersion": "7"}
    return {"type": records.TYPE, "metadata": metadata, "data": {"row": base64.b64encode(b"x").decode()}} | fields


def kept(answer: Answer | Exception) -> SecretRecords:
    return SecretRecords(Hub(answer), "ns", "kulvert")


def test_a_secret_is_a_record_if_it_is_of_the_type() -> None:
    assert records.view(secret()) == Record("n", "7", b"x")
    assert records.view(secret(type="Opaque")) is None
    assert keysecret.view(secret()) is None
    assert "x" not in repr(Record("n", "7", b"x")).replace("Record", "")


@pytest.mark.parametrize(
    "bad",
    [{"data": {}}, {"data": {"row": "%"}}, {"metadata": {"name": "n", "resourceVersion": "x"}}],
    ids=["nothing", "no base64", "version"],
)
async def test_a_malformed_one_is_an_error_that_says_what_to_do(bad: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        records.view(secret(**bad))
    with pytest.raises(RecordsUnavailable, match="Secret ns/n is malformed: delete it, or mend it"):
        await kept(Answer(200, secret(**bad))).get("n")


async def test_what_is_not_there_is_none_and_what_was_changed_is_a_conflict() -> None:
    assert await kept(Answer(404, {})).get("n") is None
    for status in (404, 409):
        with pytest.raises(RecordConflict):
            await kept(Answer(status, {})).replace("n", "cluster", b"x", "7")
        with pytest.raises(RecordConflict):
            await kept(Answer(status, {})).delete("n", "7")
    with pytest.raises(RecordConflict):
        await kept(Answer(409, {})).create("n", "cluster", b"x")


@pytest.mark.parametrize(
    ("answer", "unsure"),
    [
        (Answer(404, {}), False),
        (Answer(403, {"reason": "Forbidden"}), False),
        (Answer(422, {}), False),
        (Answer(429, {}), False),
        (Answer(500, {}), True),
        (Answer(504, {}), True),
        (HubUnavailable("the hub does not answer"), True),
        (HubUnreachable("the hub cannot be reached"), False),
        (Answer(201, {"metadata": {}}), True),
    ],
    ids=["no namespace", "forbidden", "invalid", "later", "broken", "slow", "silent", "no connection", "no version"],
)
async def test_a_write_that_may_have_been_done_is_told_from_one_that_was_not(
    answer: Answer | Exception, unsure: bool
) -> None:
    with pytest.raises(RecordsUnavailable) as failed:
        await kept(answer).create("n", "cluster", b"secret")
    assert failed.value.unsure is unsure
    assert "secret" not in str(failed.value).replace("Secret", "")


async def test_no_connection_is_told_from_no_answer() -> None:
    configuration = client.Configuration(host="http://127.0.0.1:1")
    configuration.retries = 0
    async with client.ApiClient(configuration) as api:
        with pytest.raises(HubUnreachable):
            await HubObjects(api).ask("GET", "/api")


async def test_what_is_written_is_labelled_and_replaces_one_version() -> None:
    store = kept(Answer(200, secret()))
    assert await store.replace("n", "cluster", b"x", "6") == "7"
    (method, path, body), *_ = store._hub.asked  # type: ignore[attr-defined]  # the one above
    assert (method, path) == ("PUT", "/api/v1/namespaces/ns/secrets/n")
    assert body["type"] == "kulvert.dev/record"
    assert body["metadata"]["resourceVersion"] == "6"
    assert body["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "kulvert",
        "kulvert.dev/installation": "kulvert",
        "kulvert.dev/table": "cluster",
    }
    assert store.source.label_selector.endswith("kulvert.dev/installation=kulvert,kulvert.dev/table")


async def test_keys_in_a_secret_of_another_type_are_not_used() -> None:
    store = KeySecret(Hub(Answer(200, secret(type="Opaque"))), "ns", "kulvert")
    with pytest.raises(RecordsUnavailable, match=r"Secret ns/kulvert-keys is not of type kulvert\.dev/keys"):
        await store.get()
    assert store.source.field_selector == "metadata.name=kulvert-keys"
