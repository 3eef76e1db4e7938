"""The replicas' door before any exchange: who comes in, what is said first, and what nobody is kept waiting by."""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stub.ownership import Replica
from stub.peers import door
from stub.peers.address import BadPeerAddress, PeerAddress
from stub.peers.hello import OWN, PeerHello, PeerWelcome
from stub.peers.identity import PeerIdentity, authority_of
from tests.stub.peers.replicas import RawPeer, Server, authority, session_hello, until
from tests.support.attached import HOST, insecure
from tunnel.frames import CONTROL, encode
from tunnel.handshake import Refused


@pytest.fixture
async def o(replicas_ca: bytes) -> AsyncIterator[Server]:
    async with await Server("o", replicas_ca).listen() as server:
        yield server


@pytest.fixture
def r(replicas_ca: bytes) -> PeerIdentity:
    return PeerIdentity(replicas_ca, "r", time.time)


async def welcomed(link: RawPeer, hello: PeerHello) -> PeerWelcome:
    """The answer to a hello. Raises Refused."""
    link.tell(hello)
    return PeerWelcome.parse(await link.message(), session=hello.link != OWN)


# --- certificates


@pytest.mark.parametrize("name", ["kulvert-agents", "kulvert-users", "kulvert-replicas"])
async def test_a_certificate_of_any_other_authority_is_refused(o: Server, name: str) -> None:
    """Though it says the right URI, and its authority has the right name."""
    stranger = PeerIdentity(authority(name), "r", time.time)
    stranger.client.verify_mode = ssl.CERT_NONE
    async with await RawPeer.open(o, stranger.client) as link:
        link.tell(session_hello())
        with pytest.raises(EOFError):
            await link.message()
    assert not o.door.sessions


async def test_without_a_certificate_nobody_comes_in(o: Server) -> None:
    async with await RawPeer.open(o, insecure()) as link:
        link.tell(session_hello())
        with pytest.raises(EOFError):
            await link.message()


async def test_a_certificate_of_the_authority_that_names_no_replica_is_refused(
    o: Server, replicas_ca: bytes, tmp_path: Path
) -> None:
    issued = authority_of(replicas_ca).issue_client("r", [], time.time(), 100)
    (tmp_path / "pem").write_bytes(issued.certificate + issued.key)
    tls = insecure()
    tls.load_cert_chain(tmp_path / "pem")
    async with await RawPeer.open(o, tls) as link:
        link.tell(session_hello())
        with pytest.raises(EOFError):
            await link.message()


async def test_hello_says_what_the_certificate_says(o: Server, r: PeerIdentity) -> None:
    async with await RawPeer.open(o, r.client) as link:
        with pytest.raises(Refused, match="not of replica 'x'"):
            await welcomed(link, session_hello("x"))


async def test_hello_is_for_this_replica(o: Server, r: PeerIdentity) -> None:
    async with await RawPeer.open(o, r.client) as link:
        with pytest.raises(Refused, match="this is replica 'o', not 'p'"):
            await welcomed(link, session_hello(to="p"))


@pytest.mark.parametrize("who", ["another replica", "another authority"])
async def test_nothing_is_said_to_a_server_that_is_not_the_one_that_was_meant(o: Server, who: str) -> None:
    ca = authority() if who == "another authority" else None
    async with AsyncExitStack() as stack:
        wrong = await Server("o" if ca else "x", ca or _ca_of(o)).listen()
        await stack.enter_async_context(wrong)
        with capture_logs() as logs:
            o.peers.tell([Replica("p" if ca is None else "o2", wrong.address)])
            await until(lambda: [line for line in logs if line["event"] == "another replica is not reached"])
        await asyncio.sleep(0.2)
        assert not wrong.door.sessions
        assert not o.peers._sessions
        (line, *_) = [line for line in logs if line["event"] == "another replica is not reached"]
        assert ("replica x answers at the address of p" in line["error"]) is (ca is None)


def _ca_of(server: Server) -> bytes:
    assert server.tls is not None
    return server.tls._authority.to_pem()


async def test_what_speaks_no_tls_goes_and_leaves_nothing(o: Server) -> None:
    host, _, port = o.address.rpartition(":")
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n"):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        writer.transport.abort()
    await asyncio.sleep(0.05)
    assert not o.door._greeting


# --- the greeting


async def test_a_version_that_is_not_spoken_is_refused_clearly(o: Server, r: PeerIdentity) -> None:
    async with await RawPeer.open(o, r.client) as link:
        with pytest.raises(Refused, match="replica o speaks version 1 of the protocol between replicas"):
            await welcomed(link, session_hello(versions=(2, 3)))
    async with await RawPeer.open(o, r.client) as link:
        assert (await welcomed(link, session_hello(versions=(1, 2)))).version == 1


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01" * 30, b"kulvert-peer\n"])
async def test_what_does_not_begin_as_a_replica_does_is_ended(o: Server, r: PeerIdentity, said: bytes) -> None:
    async with await RawPeer.open(o, r.client, preamble=False) as link:
        link.write(said)
        await link.ended(0.3)


@pytest.mark.parametrize(
    "said",
    [
        encode(CONTROL, payload=b"{}"),
        encode(CONTROL, payload=b"[" * 5000),
        encode(CONTROL, payload=b'{"kind": "peer"}'),
        encode(CONTROL, payload=b'{"kind": "hello", "versions": [1]}'),
        encode(CONTROL, payload=b'{"kind": "peer", "versions": [1], "identity": "r", "to": "o", "link": "x"}'),
        encode(CONTROL, payload=b'{"kind": "peer", "versions": [1], "identity": "r", "to": "o", "link": "adopt"}'),
        encode(0x02, payload=b"x"),
        encode(CONTROL, payload=b" " * 60_000),
        encode(CONTROL, payload=session_hello().encode()) * 2,
    ],
    ids=["empty", "deep", "no fields", "hello", "unknown link", "bare adopt", "no control", "huge", "twice"],
)
async def test_a_hello_that_is_malformed_ends_it(o: Server, r: PeerIdentity, said: bytes) -> None:
    async with await RawPeer.open(o, r.client) as link:
        link.say(said)
        await link.ended(0.3)
    assert not o.door.sessions


async def test_a_hello_comes_soon_or_not_at_all(o: Server, r: PeerIdentity) -> None:
    async with await RawPeer.open(o, r.client) as link:
        for byte in encode(CONTROL, payload=session_hello().encode())[:20]:
            link.say(bytes([byte]))
            await asyncio.sleep(0.02)
        await link.ended(0.6)
    await until(lambda: not o.door._greeting)


async def test_greetings_are_bounded(o: Server, r: PeerIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_GREETING_AT_ONCE", 2)
    waiting = [await RawPeer.open(o, r.client) for _ in range(2)]
    await until(lambda: len(o.door._greeting) == 2)
    async with await RawPeer.open(o, r.client) as turned_away:
        await turned_away.ended(0.3)
    for link in waiting:
        async with link:
            await link.ended()
    async with await RawPeer.open(o, r.client) as link:
        await welcomed(link, session_hello())


async def test_a_replica_that_shuts_down_takes_nobody(o: Server, r: PeerIdentity) -> None:
    o.door.drain()
    async with await RawPeer.open(o, r.client) as link:
        with pytest.raises(Refused, match="shutting down"):
            await welcomed(link, session_hello())


# --- own links


async def test_an_own_link_needs_its_sessions_secret_and_its_replica_and_is_taken_once(
    o: Server, r: PeerIdentity, replicas_ca: bytes
) -> None:
    async with await RawPeer.open(o, r.client) as shared:
        welcome = await welcomed(shared, session_hello())
        hello = PeerHello("r", "o", OWN, session=welcome.session, secret=welcome.secret, link_id=1)
        s = PeerIdentity(replicas_ca, "s", time.time)
        wrong = [
            (replace(hello, secret="0" * 64), "secret of this own link is wrong", r),
            (replace(hello, secret="é"), "secret of this own link is wrong", r),
            (replace(hello, session="0" * 32), "no such session", r),
            (replace(hello, identity="s"), "secret of this own link is wrong", s),
        ]
        for said, why, tls in wrong:
            async with await RawPeer.open(o, tls.client) as link:
                with pytest.raises(Refused, match=why):
                    await welcomed(link, said)
        async with await RawPeer.open(o, r.client) as own:
            await welcomed(own, hello)
            async with await RawPeer.open(o, r.client) as again:  # byte for byte what was said before
                with pytest.raises(Refused, match="used before"):
                    await welcomed(again, hello)
    async with await RawPeer.open(o, r.client) as late:
        await until(lambda: not o.door.sessions)
        with pytest.raises(Refused, match="no such session"):
            await welcomed(late, replace(hello, link_id=2))


# --- Unix sockets


async def test_a_unix_socket_stands_in_a_private_directory_only(tmp_path: Path) -> None:
    server = Server("o", None)
    tmp_path.chmod(0o755)
    with pytest.raises(BadPeerAddress, match="0700"):
        await server.door.start_unix(f"unix:{tmp_path}/s")
    with pytest.raises(ValueError, match="TLS"):
        await server.door.start(HOST, 0)


async def test_a_socket_that_was_left_behind_is_replaced_and_ours_is_taken_away() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "s")
        left = await asyncio.start_unix_server(lambda _r, _w: None, path)
        left.close()
        if not path.exists():
            os.mknod(path, 0o140600)
        async with await Server("o", None).listen(f"unix:{path}") as o, await RawPeer.open(o, None) as link:
            await welcomed(link, session_hello())
        assert not path.exists()


@pytest.mark.parametrize(
    "text",
    [
        "", "host", "host:", ":1", "host:0", "host:65536", "host:x", "unix:", "unix:a", f"unix:/{110 * 'x'}",
        "kulvert-2..svc:1", ".svc:1", f"{64 * 'x'}.svc:1", f"{'x.' * 130}svc:1", "ho st:1", "ho\0st:1", "höst:1",
        "-x:1", "[fd00::zz]:1", "unix:/a\0b", "host/x:1", "[]:1",
    ],
    ids=range(22),
)  # fmt: skip
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(BadPeerAddress):
        PeerAddress.parse(text)


def test_addresses() -> None:
    assert PeerAddress.parse("10.0.0.1:8445") == PeerAddress("10.0.0.1", 8445)
    assert PeerAddress.parse("[fd00::1]:8445") == PeerAddress("fd00::1", 8445)
    assert PeerAddress.parse("kulvert-0.kulvert_peers.ns.svc.cluster.local.:1").port == 1
    assert PeerAddress.parse("unix:/run/k/1") == PeerAddress(path="/run/k/1")
