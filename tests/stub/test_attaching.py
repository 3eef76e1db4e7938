"""What the agents' door takes for a hello, and what not: each test is a conversation on a connection of its own."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from structlog.testing import capture_logs

from agent.identityfile import new_key
from tests.agent.pki import Authority
from tests.support.agentauthority import Book
from tests.support.attached import (
    RawLink,
    Stub,
    attach_raw,
    eventually,
    nothing_left,
    own_hello,
    shared_hello,
    supersedes,
)
from tunnel import proof
from tunnel.frames import CONTROL, DATA, HEADER, encode
from tunnel.handshake import Challenge, Hello, Refused
from tunnel.limits import KIB

Change = Callable[[dict[str, Any]], object]


async def refusal(link: RawLink, *, own: bool = False) -> str:
    """The reason of the stub's no, after which it closes."""
    with pytest.raises(Refused) as caught:
        await link.welcome(own=own)
    await link.ended()
    return caught.value.reason


async def test_a_hello_with_the_right_proof_makes_a_session(stub: Stub) -> None:
    link, welcome = await attach_raw(stub)
    async with link:
        (session,) = stub.sessions.of("alpha")
        assert welcome.session == session.id
        assert proof.decode(welcome.secret) == session.secret
        assert (welcome.credit, welcome.exchanges) == (64 * KIB, 100)
        assert (session.info.agent, session.info.cluster_id, session.max_links) == ("agent-1", "uid-of-alpha", 4)
        assert session.info.address.startswith("127.0.0.1:")
    await eventually(lambda: not stub.sessions.all())


# --- late, large, malformed


async def test_a_connection_without_a_hello_ends_in_time(stub: Stub) -> None:
    async with await stub.dial() as link:
        await link.challenge()
        began = time.monotonic()
        await link.ended()
        assert 0.2 < time.monotonic() - began < 1.0


async def test_a_hello_byte_by_byte_has_to_be_done_in_time(stub: Stub) -> None:
    async with await stub.dial() as link:
        hello = encode(CONTROL, payload=shared_hello(link, await link.challenge()).encode())
        for byte in hello:
            link.say(bytes((byte,)))
        await link.welcome()
    await eventually(lambda: not stub.sessions.all())
    async with await stub.dial() as link:
        await link.challenge()
        for byte in hello[:20]:
            link.say(bytes((byte,)))
            await asyncio.sleep(0.03)
        await link.ended()
    assert not stub.sessions.all()


@pytest.mark.parametrize("size", [8 * KIB + 1, 64 * KIB + 1, 2**31])
async def test_a_hello_that_is_too_large_ends_at_its_header(stub: Stub, size: int) -> None:
    async with await stub.dial() as link:
        await link.challenge()
        link.say(HEADER.pack(CONTROL, 0, size, 0))
        await link.ended(0.3)


async def test_a_hello_may_have_8_kib(stub: Stub) -> None:
    async with await stub.dial() as link:
        hello = json.loads(shared_hello(link, await link.challenge()).encode())
        hello["unknown"] = ""
        hello["unknown"] = "x" * (8 * KIB - len(json.dumps(hello)))
        link.say(encode(CONTROL, payload=json.dumps(hello).encode()))
        await link.welcome()


def _field(name: str, value: object) -> Change:
    return lambda fields: fields.__setitem__(name, value)


MALFORMED: dict[str, Change] = {
    "another kind": _field("kind", "welcome"),
    "no kind": lambda fields: fields.pop("kind"),
    "no link": lambda fields: fields.pop("link"),
    "a link of another sort": _field("link", "both"),
    "a version that is a text": _field("version", "1"),
    "a version that is true": _field("version", True),
    "a nonce that is a number": _field("nonce", 7),
    "a long nonce": _field("nonce", "n" * 65),
    "no proof": lambda fields: fields.pop("proof"),
    "no certificate": lambda fields: fields.pop("certificate"),
    "a certificate of several lines": _field("certificate", "a\nb"),
    "a long certificate": _field("certificate", "a" * 4097),
    "no cluster": lambda fields: fields.pop("cluster"),
    "a long cluster": _field("cluster", "a" * 64),
    "a line feed in a name": _field("agent", "a\nb"),
    "half a surrogate": _field("agent", "\ud800"),
    "no credit": lambda fields: fields.pop("credit"),
    "credit of a byte": _field("credit", 1),
    "credit beyond bounds": _field("credit", 2**40),
    "no exchanges": _field("exchanges", 0),
    "a negative number of links": _field("links", -1),
    "links that are a fraction": _field("links", 1.5),
    "supersedes that is a text": _field("supersedes", "session"),
    "supersedes that is a list": _field("supersedes", ["session"]),
    "an own link without a session": _field("link", "own"),
    "an enrolment without a token": _field("link", "enrol"),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
async def test_a_hello_that_is_malformed_ends_the_connection(stub: Stub, change: Change) -> None:
    async with await stub.dial() as link:
        fields = json.loads(shared_hello(link, await link.challenge()).encode())
        change(fields)
        link.say(encode(CONTROL, payload=json.dumps(fields).encode()))
        await link.ended(0.3)
    assert not stub.sessions.all()


RAW = {
    "no JSON": encode(CONTROL, payload=b"hello"),
    "no object": encode(CONTROL, payload=b"[1]"),
    "no UTF-8": encode(CONTROL, payload=b'{"kind": "\xff"}'),
    "nothing": encode(CONTROL),
    "deep nesting": encode(CONTROL, payload=b'{"kind": ' + b"[" * 4000),
    "a field twice": encode(CONTROL, payload=b'{"kind": "hello", "kind": "hello"}'),
    "a huge number": encode(CONTROL, payload=b'{"kind": "hello", "version": ' + b"9" * 5000 + b"}"),
    "another frame": encode(DATA, 0, 1, b"data"),
    "a frame that is unknown": encode(0x80, 0, 0, b"later"),
    "no frame at all": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("data", RAW.values(), ids=RAW)
async def test_what_is_no_hello_ends_the_connection(stub: Stub, data: bytes) -> None:
    async with await stub.dial() as link:
        await link.challenge()
        link.say(data)
        await link.ended(0.3)


@pytest.mark.parametrize("more", [encode(DATA, 0, 1, b"x"), encode(CONTROL, payload=b'{"kind": "x"}'), b"\x03"])
async def test_nothing_but_hello_is_read_before_the_welcome(stub: Stub, more: bytes) -> None:
    async with await stub.dial() as link:
        hello = shared_hello(link, await link.challenge())
        link.say(encode(CONTROL, payload=hello.encode()) + more)
        await link.ended(0.3)
    assert not stub.sessions.all()


async def test_fields_and_flags_that_are_unknown_are_ignored(stub: Stub) -> None:
    async with await stub.dial() as link:
        fields = json.loads(shared_hello(link, await link.challenge()).encode())
        link.say(encode(CONTROL, 0xFF, payload=json.dumps(fields | {"later": {"x": [1]}}).encode()))
        await link.welcome()


# --- identity


async def test_a_recorded_hello_is_good_for_nothing_on_a_new_connection(stub: Stub) -> None:
    async with await stub.dial() as link:
        hello = shared_hello(link, await link.challenge())
        link.tell(hello)
        await link.welcome()
        async with await stub.dial() as again:
            await again.challenge()
            again.tell(hello)
            assert await refusal(again) == "proof"
        assert len(stub.sessions.all()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"key": new_key()},
        {"key": ec.generate_private_key(ec.SECP384R1())},
        {"key": ed25519.Ed25519PrivateKey.generate()},
        {"signed": {"cluster": "beta"}},
        {"signed": {"cluster_id": "another"}},
        {"signed": {"instance": "2" * 32}},
        {"signed": {"name": "another"}},
        {"signed": {"nonce": "another"}},
    ],
    ids=("P-256", "P-384", "Ed25519", "cluster", "cluster id", "instance", "name", "nonce"),
)
async def test_a_wrong_proof_is_refused(stub: Stub, changes: dict[str, Any]) -> None:
    async with await stub.dial() as link:
        link.tell(shared_hello(link, await link.challenge(), **changes))
        assert await refusal(link) == "proof"
    assert not stub.sessions.all()
    assert stub.book.pins["alpha"] == ""


async def test_a_proof_is_bound_to_the_stub_and_its_epoch(stub: Stub) -> None:
    for change in ({"server": "stub-2"}, {"epoch": 8}, {"nonce": proof.encode(b"n" * 32)}):
        async with await stub.dial() as link:
            challenge: Challenge = replace(await link.challenge(), **change)
            link.tell(shared_hello(link, challenge))
            assert await refusal(link) == "proof"


@pytest.mark.parametrize("given", ["", "A", "+/+/", "x" * 4096, proof.encode(b"0" * 600)], ids=len)
async def test_a_certificate_that_is_none_is_refused(stub: Stub, given: str) -> None:
    async with await stub.dial() as link:
        challenge = await link.challenge()
        link.tell(replace(shared_hello(link, challenge), certificate=given))
        assert await refusal(link) == "certificate"


async def test_a_certificate_without_its_key_is_worth_nothing(stub: Stub) -> None:
    stolen, own = stub.book.issued(), stub.book.issued("beta", "uid-of-beta")
    async with await stub.dial() as link:
        link.tell(shared_hello(link, await link.challenge(), identity=stolen, key=own.key))
        assert await refusal(link) == "proof"


@pytest.mark.parametrize("hello", [{"cluster": "alpha"}, {"cluster": "alpha", "cluster_id": "uid-of-alpha"}], ids=str)
async def test_a_certificate_for_one_cluster_attaches_as_nothing_else(stub: Stub, hello: dict[str, str]) -> None:
    beta = stub.book.issued("beta", "uid-of-beta")
    async with await stub.dial() as link:
        link.tell(shared_hello(link, await link.challenge(), identity=beta, **hello))
        assert await refusal(link) == "identity"
    async with await stub.dial() as link:
        link.tell(shared_hello(link, await link.challenge(), identity=beta, cluster="beta", cluster_id="uid-of-alpha"))
        assert await refusal(link) == "identity"
    assert not stub.sessions.all()


async def test_a_certificate_of_another_authority_is_refused(stub: Stub) -> None:
    async with await stub.dial() as link:
        link.tell(shared_hello(link, await link.challenge(), identity=Book().issued()))
        assert await refusal(link) == "certificate"


async def test_a_certificate_that_has_expired_is_refused(stub: Stub) -> None:
    stub.book.lifetime = -1.0
    async with await stub.dial() as link:
        link.tell(shared_hello(link, await link.challenge(), identity=stub.book.issued()))
        assert await refusal(link) == "certificate"


async def test_a_certificate_that_was_revoked_is_refused(stub: Stub) -> None:
    identity = stub.book.issued()
    stub.book.revoke(identity)
    async with await stub.dial() as link:
        link.tell(shared_hello(link, await link.challenge(), identity=identity))
        assert await refusal(link) == "certificate"


async def test_the_certificate_in_tls_is_the_one_in_hello(stub: Stub) -> None:
    alpha, beta = stub.book.identity("alpha", "uid-of-alpha"), stub.book.identity("beta", "uid-of-beta")
    async with await RawLink.open(stub.name, stub.ca, stub.book, alpha) as link:
        link.tell(shared_hello(link, await link.challenge(), identity=alpha))
        await link.welcome()
    async with await RawLink.open(stub.name, stub.ca, stub.book, beta) as link:
        link.tell(shared_hello(link, await link.challenge(), identity=alpha))
        assert await refusal(link) == "certificate"


async def test_behind_a_load_balancer_that_ends_tls_hello_alone_proves_the_agent(
    authority: Authority, tmp_path: Path
) -> None:
    async with nothing_left(), Stub(authority, tmp_path, asks=False) as stub:
        beta = stub.book.identity("beta", "uid-of-beta")
        async with await RawLink.open(stub.name, stub.ca, stub.book, beta) as link:
            link.tell(shared_hello(link, await link.challenge()))
            await link.welcome()
        async with await stub.dial() as link:
            link.tell(shared_hello(link, await link.challenge(), key=beta.key))
            assert await refusal(link) == "proof"


async def test_a_cluster_is_pinned_by_its_first_agent(stub: Stub) -> None:
    link, _ = await attach_raw(stub)
    async with link:
        assert stub.book.pins["alpha"] == "uid-of-alpha"
        async with await stub.dial() as other:
            other.tell(shared_hello(other, await other.challenge(), cluster_id="uid-of-gamma"))
            assert await refusal(other) == "cluster"
        assert len(stub.sessions.of("alpha")) == 1


async def test_a_cluster_that_is_not_registered_is_refused(stub: Stub) -> None:
    del stub.book.pins["alpha"]
    async with await stub.dial() as link:
        link.tell(shared_hello(link, await link.challenge()))
        assert await refusal(link) == "cluster"


async def test_a_version_that_was_not_offered_is_refused(stub: Stub) -> None:
    for version in (0, 2, 255):
        async with await stub.dial() as link:
            link.tell(shared_hello(link, await link.challenge(), version=version))
            assert await refusal(link) == "version"


async def test_only_names_that_the_server_has_may_be_dialled(authority: Authority, tmp_path: Path) -> None:
    async with nothing_left(), Stub(authority, tmp_path, names=frozenset({"kulvert.test"})) as stub:
        async with await stub.dial() as link:
            link.tell(shared_hello(link, await link.challenge(), name="kulvert.test.evil.example"))
            assert await refusal(link) == "name"
        async with await stub.dial() as link:
            link.tell(shared_hello(link, await link.challenge(), name="kulvert.test"))
            await link.welcome()


async def test_a_server_that_drains_takes_no_agents(stub: Stub) -> None:
    stub.sessions.drain()
    async with await stub.dial() as link:
        link.tell(shared_hello(link, await link.challenge()))
        assert await refusal(link) == "draining"


# --- room


async def shared_refusal(stub: Stub) -> Refused:
    """What a further agent of alpha is told."""
    async with await stub.dial() as link:
        link.tell(shared_hello(link, await link.challenge()))
        with pytest.raises(Refused) as caught:
            await link.welcome()
        await link.ended()
    return caught.value


async def test_a_cluster_has_so_many_sessions_and_no_more(authority: Authority, tmp_path: Path) -> None:
    async with nothing_left(), Stub(authority, tmp_path, max_sessions=2) as stub:
        first, welcome = await attach_raw(stub)
        second, _ = await attach_raw(stub)
        async with second:
            async with first:
                refused = await shared_refusal(stub)
                assert (refused.reason, refused.retry_after) == ("sessions", 10)
                beta, _ = await attach_raw(stub, cluster="beta", cluster_id="uid-of-beta")
                async with beta, await stub.dial() as link:
                    challenge = await link.challenge()
                    hello = shared_hello(link, challenge)
                    link.tell(supersedes(hello, challenge, welcome.session, proof.decode(welcome.secret)))
                    await link.welcome()  # it takes the place of the one that it replaces
                    assert len(stub.sessions.of("alpha")) == 2
            await eventually(lambda: len(stub.sessions.of("alpha")) == 1)
            third, _ = await attach_raw(stub)
            async with third:
                assert len(stub.sessions.of("alpha")) == 2


async def test_a_server_has_so_many_links_and_no_more(authority: Authority, tmp_path: Path) -> None:
    async with nothing_left(), Stub(authority, tmp_path, max_links_in_all=2) as stub:
        shared, welcome = await attach_raw(stub)
        secret = proof.decode(welcome.secret)
        async with shared:
            first = await own(stub, lambda c, name: own_hello(c, name, welcome.session, secret, 1))
            async with first:
                await first.welcome(own=True)
                assert len(stub.setting.links) == 2
                refused = await shared_refusal(stub)
                assert (refused.reason, refused.retry_after) == ("overloaded", 10)
                async with await own(stub, lambda c, name: own_hello(c, name, welcome.session, secret, 2)) as more:
                    assert await refusal(more, own=True) == "overloaded"
                async with await stub.dial() as successor:
                    challenge = await successor.challenge()
                    hello = shared_hello(successor, challenge)
                    successor.tell(supersedes(hello, challenge, welcome.session, secret))
                    await successor.welcome()  # for the old ones leave
        await eventually(lambda: not stub.setting.links)
        link, welcome = await attach_raw(stub)
        async with link:
            secret = proof.decode(welcome.secret)
            async with await own(stub, lambda c, name: own_hello(c, name, welcome.session, secret, 1)) as one:
                await one.welcome(own=True)


async def test_a_link_that_takes_its_leave_uses_its_place_until_it_is_gone(
    authority: Authority, tmp_path: Path
) -> None:
    async with nothing_left(), Stub(authority, tmp_path, max_links_in_all=1) as stub:
        link, _ = await attach_raw(stub)
        async with link:
            stub.sessions.all()[0].mux.close("the cluster was removed")
            assert not stub.sessions.all()
            assert (await shared_refusal(stub)).reason == "overloaded"
        await eventually(lambda: not stub.setting.links)


# --- supersede


async def test_the_old_sessions_secret_ends_it(stub: Stub) -> None:
    old, welcome = await attach_raw(stub)
    async with old, await stub.dial() as link:
        challenge = await link.challenge()
        hello = shared_hello(link, challenge)
        link.tell(supersedes(hello, challenge, welcome.session, proof.decode(welcome.secret)))
        fresh = await link.welcome()
        assert [session.id for session in stub.sessions.of("alpha")] == [fresh.session]
        await old.ended()


async def test_a_wrong_secret_leaves_the_old_session_alone(stub: Stub) -> None:
    old, welcome = await attach_raw(stub)
    async with old, await stub.dial() as link:
        challenge = await link.challenge()
        link.tell(supersedes(shared_hello(link, challenge), challenge, welcome.session, b"wrong" * 8))
        await link.welcome()
        assert len(stub.sessions.of("alpha")) == 2


async def test_no_agent_ends_another_clusters_session(stub: Stub) -> None:
    old, welcome = await attach_raw(stub)
    async with old, await stub.dial() as link:
        challenge = await link.challenge()
        hello = shared_hello(link, challenge, cluster="beta", cluster_id="uid-of-beta")
        link.tell(supersedes(hello, challenge, welcome.session, proof.decode(welcome.secret)))
        await link.welcome()
        assert [len(stub.sessions.of(name)) for name in ("alpha", "beta")] == [1, 1]


async def test_a_session_that_is_long_gone_is_superseded_in_silence(stub: Stub) -> None:
    async with await stub.dial() as link:
        challenge = await link.challenge()
        link.tell(supersedes(shared_hello(link, challenge), challenge, "f" * 32, b"wrong" * 8))
        await link.welcome()


# --- own links


async def own(stub: Stub, hello: Callable[[Challenge, str], Hello]) -> RawLink:
    link = await stub.dial()
    link.tell(hello(await link.challenge(), link.name))
    return link


async def test_an_own_link_with_the_sessions_secret_is_attached(stub: Stub) -> None:
    shared, welcome = await attach_raw(stub)
    secret = proof.decode(welcome.secret)
    async with shared, await own(stub, lambda c, name: own_hello(c, name, welcome.session, secret, 2**64 - 1)) as link:
        await link.welcome(own=True)
        (session,) = stub.sessions.all()
        assert list(session.mux.own_links) == [2**64 - 1]


async def test_an_own_link_of_another_session_is_refused(stub: Stub) -> None:
    first, one = await attach_raw(stub)
    second, two = await attach_raw(stub, instance="2" * 32)
    async with first, second:
        for session, secret in (
            (one.session, two.secret),
            (two.session, one.secret),
            (one.session, proof.encode(b"x" * 32)),
        ):
            raw = proof.decode(secret)
            link = await own(stub, lambda c, name, s=session, r=raw: own_hello(c, name, s, r))  # type: ignore[misc]
            async with link:
                assert await refusal(link, own=True) == "proof"
        assert not any(session.mux.own_links for session in stub.sessions.all())


async def test_an_own_link_of_a_session_that_is_unknown_or_gone_is_refused(stub: Stub) -> None:
    shared, welcome = await attach_raw(stub)
    secret = proof.decode(welcome.secret)
    async with await own(stub, lambda c, name: own_hello(c, name, "f" * 32, secret)) as link:
        assert await refusal(link, own=True) == "session"
    async with shared:
        pass
    await eventually(lambda: not stub.sessions.all())
    async with await own(stub, lambda c, name: own_hello(c, name, welcome.session, secret)) as link:
        assert await refusal(link, own=True) == "session"


async def test_a_link_id_is_good_for_once(stub: Stub) -> None:
    shared, welcome = await attach_raw(stub)
    secret = proof.decode(welcome.secret)
    async with shared:
        async with await own(stub, lambda c, name: own_hello(c, name, welcome.session, secret, 7)) as link:
            await link.welcome(own=True)
        (session,) = stub.sessions.all()
        await eventually(lambda: not session.mux.own_links)
        async with await own(stub, lambda c, name: own_hello(c, name, welcome.session, secret, 7)) as link:
            assert await refusal(link, own=True) == "link"
        assert not session.mux.own_links


async def test_a_recorded_own_hello_is_refused(stub: Stub) -> None:
    shared, welcome = await attach_raw(stub)
    secret = proof.decode(welcome.secret)
    async with shared, await stub.dial() as link:
        hello = own_hello(await link.challenge(), link.name, welcome.session, secret)
        link.tell(hello)
        await link.welcome(own=True)
        async with await stub.dial() as again:
            await again.challenge()
            again.tell(hello)
            assert await refusal(again, own=True) == "proof"


async def test_there_are_no_more_own_links_than_were_announced(stub: Stub) -> None:
    shared, welcome = await attach_raw(stub, links=1)
    secret = proof.decode(welcome.secret)
    async with shared, await own(stub, lambda c, name: own_hello(c, name, welcome.session, secret, 1)) as first:
        await first.welcome(own=True)
        async with await own(stub, lambda c, name: own_hello(c, name, welcome.session, secret, 2)) as second:
            assert await refusal(second, own=True) == "link"
        assert len(stub.sessions.all()[0].mux.own_links) == 1


@pytest.mark.parametrize("link_id", ["", "0", "-1", "1.0", "x", str(2**64), "٣", "1" * 30])
async def test_a_link_id_that_is_no_64_bit_number_ends_the_connection(stub: Stub, link_id: str) -> None:
    shared, welcome = await attach_raw(stub)
    async with shared, await stub.dial() as link:
        hello = own_hello(await link.challenge(), link.name, welcome.session, proof.decode(welcome.secret))
        fields = json.loads(hello.encode()) | {"linkId": link_id}
        link.say(encode(CONTROL, payload=json.dumps(fields).encode()))
        await link.ended(0.3)


async def test_nothing_of_a_refusal_holds_a_secret(stub: Stub) -> None:
    planted = proof.encode(os.urandom(24))
    with capture_logs() as logged:
        async with await stub.dial() as link:
            link.tell(replace(shared_hello(link, await link.challenge()), proof=planted))
            with pytest.raises(Refused) as caught:
                await link.welcome()
    assert "agent refused" in [entry["event"] for entry in logged]
    assert planted not in repr(logged) + str(caught.value) + caught.value.reason
