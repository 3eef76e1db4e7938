"""What the agents' door gives to whoever proves a join token, and what not."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.enrolment import request
from agent.identityfile import AgentIdentity, new_key
from tests.agent.pki import Authority
from tests.support.attached import (
    SECRET,
    UID,
    RawLink,
    Stub,
    attach_raw,
    enrol_hello,
    eventually,
    nothing_left,
    shared_hello,
)
from tunnel import proof
from tunnel.enrolment import MAX_CSR, Issued
from tunnel.frames import CONTROL, encode
from tunnel.handshake import Challenge, Refused
from tunnel.limits import KIB


async def issued(link: RawLink) -> Issued:
    """The stub's yes, after which it closes."""
    found = Issued.parse(await link.message())
    await link.ended()
    return found


async def refusal(link: RawLink) -> Refused:
    """The stub's no, after which it closes."""
    with pytest.raises(Refused) as caught:
        Issued.parse(await link.message())
    await link.ended()
    return caught.value


async def asked(stub: Stub, **changes: Any) -> Refused:
    """What an enrolment is refused with."""
    async with await stub.dial() as link:
        link.tell(enrol_hello(link, await link.challenge(), **changes))
        return await refusal(link)


async def test_a_join_token_gets_a_certificate_and_the_certificate_attaches(stub: Stub) -> None:
    key = new_key()
    stub.book.trust = stub.ca
    async with await stub.dial() as link:
        link.tell(enrol_hello(link, await link.challenge(), csr=request(key, "alpha", UID)))
        given = await issued(link)
    assert given.trust == stub.ca
    identity = AgentIdentity.of(key, given.certificate, "alpha", UID)
    assert not stub.sessions.all()
    (seen,) = stub.book.requests
    assert (seen.token, seen.cluster, seen.cluster_id, seen.agent) == ("join-a", "alpha", UID, "agent-1")
    assert seen.address.startswith("127.0.0.1:")
    link, _ = await attach_raw(stub, identity=identity)
    async with link:
        assert stub.sessions.of("alpha")
    await eventually(lambda: not stub.setting.links)


async def test_a_recorded_enrolment_is_good_for_nothing_on_a_new_connection(stub: Stub) -> None:
    async with await stub.dial() as link:
        hello = enrol_hello(link, await link.challenge())
        link.tell(hello)
        await issued(link)
    async with await stub.dial() as again:
        await again.challenge()
        again.tell(hello)
        assert (await refusal(again)).reason == "token"
    assert len(stub.book.requests) == 1


async def test_a_request_that_was_swapped_on_its_way_is_refused(stub: Stub) -> None:
    """Whoever ends TLS on the way sees the proof, and may not use it for a key of its own."""
    async with await stub.dial() as link:
        hello = enrol_hello(link, await link.challenge())
        link.tell(replace(hello, csr=request(new_key(), "alpha", UID)))
        assert (await refusal(link)).reason == "token"
    assert not stub.book.requests


@pytest.mark.parametrize(
    "changes",
    [
        {"key": b"k" * 32},
        {"key": SECRET},
        {"token": "join-c"},
        {"token": ""},
        {"token": "join-b"},
        {"key": proof.join_key("join-b", SECRET)},
        {"cluster": "beta"},
        {"signed": {"cluster": "beta"}},
        {"signed": {"cluster_id": "another"}},
        {"signed": {"instance": "2" * 32}},
        {"signed": {"name": "another"}},
        {"signed": {"nonce": "another"}},
        {"signed": {"csr": "another"}},
    ],
    ids=str,
)
async def test_a_wrong_proof_or_token_is_refused(stub: Stub, changes: dict[str, Any]) -> None:
    assert (await asked(stub, **changes)).reason == "token"
    assert not stub.book.requests


async def test_an_unknown_token_and_a_wrong_proof_read_alike(stub: Stub) -> None:
    assert (await asked(stub, token="join-c")).message == (await asked(stub, key=b"k" * 32)).message


async def test_a_proof_is_bound_to_the_stub_and_its_epoch(stub: Stub) -> None:
    for change in ({"server": "stub-2"}, {"epoch": 8}, {"nonce": proof.encode(b"n" * 32)}):
        async with await stub.dial() as link:
            challenge: Challenge = replace(await link.challenge(), **change)
            link.tell(enrol_hello(link, challenge))
            assert (await refusal(link)).reason == "token"


async def test_a_token_that_has_expired_is_refused(stub: Stub) -> None:
    stub.book.keys["join-a"] = replace(stub.book.keys["join-a"], expires=time.time() - 1)
    assert "has expired" in (await asked(stub)).message


async def test_a_token_for_any_cluster_leaves_the_choice_to_the_authority(stub: Stub) -> None:
    stub.book.add("join-any", "")
    async with await stub.dial() as link:
        hello = {"token": "join-any", "cluster": "beta", "cluster_id": "uid-of-beta"}
        link.tell(enrol_hello(link, await link.challenge(), **hello))
        await issued(link)
    assert (await asked(stub, token="join-any", cluster="gamma")).reason == "cluster"


async def test_who_has_to_wait_is_told_how_long(stub: Stub) -> None:
    stub.book.waiting.add("alpha")
    refused = await asked(stub)
    assert (refused.reason, refused.retry_after) == ("pending", 1)
    assert "waits for an administrator" in refused.message


async def test_a_request_for_another_cluster_is_the_authoritys_to_refuse(stub: Stub) -> None:
    assert (await asked(stub, csr=request(new_key(), "beta", UID))).reason == "request"
    assert (await asked(stub, csr=request(new_key(), "alpha", "another"))).reason == "request"
    assert (await asked(stub, csr="no request")).reason == "request"


@pytest.mark.parametrize("size", [MAX_CSR + 1, 9 * KIB, 60 * KIB])
async def test_a_huge_request_ends_the_connection(stub: Stub, size: int) -> None:
    async with await stub.dial() as link:
        link.tell(enrol_hello(link, await link.challenge(), csr="x" * size))
        await link.ended(0.3)
    assert not stub.book.requests


async def test_nothing_but_one_hello_is_read(stub: Stub) -> None:
    async with await stub.dial() as link:
        hello = encode(CONTROL, payload=enrol_hello(link, await link.challenge()).encode())
        link.say(hello + hello)
        await link.ended(0.3)
    assert not stub.book.requests


async def test_a_version_a_name_and_a_draining_server_are_looked_at_first(authority: Authority, tmp_path: Path) -> None:
    async with nothing_left(), Stub(authority, tmp_path, names=frozenset({"kulvert.test"})) as stub:
        assert (await asked(stub, version=2, name="kulvert.test")).reason == "version"
        assert (await asked(stub)).reason == "name"
        stub.sessions.drain()
        assert (await asked(stub, name="kulvert.test")).reason == "draining"
    assert not stub.book.requests


async def test_an_enrolled_agent_that_does_not_leave_uses_a_place(authority: Authority, tmp_path: Path) -> None:
    async with nothing_left(), Stub(authority, tmp_path, max_links_in_all=1) as stub:
        async with await stub.dial() as link:
            link.tell(enrol_hello(link, await link.challenge()))
            await link.message()
            assert len(stub.setting.links) == 1
            assert (await asked(stub)).reason == "overloaded"
        await eventually(lambda: not stub.setting.links)


async def test_the_old_proof_by_a_token_alone_attaches_nothing(stub: Stub) -> None:
    async with await stub.dial() as link:
        hello = json.loads(shared_hello(link, await link.challenge()).encode())
        del hello["certificate"]
        hello["token"] = "join-a"
        link.say(encode(CONTROL, payload=json.dumps(hello).encode()))
        await link.ended(0.3)
    assert not stub.sessions.all()


async def test_no_proof_and_no_request_is_in_the_log(stub: Stub) -> None:
    with capture_logs() as logs:
        stub.book.waiting.add("alpha")
        await asked(stub)
        stub.book.waiting.clear()
        async with await stub.dial() as link:
            hello = enrol_hello(link, await link.challenge())
            link.tell(hello)
            await issued(link)
        await asked(stub, key=b"k" * 32)
    assert hello.proof not in str(logs)
    assert "BEGIN" not in str(logs)
    assert [one["log_level"] for one in logs] == ["info", "info", "warning"]
