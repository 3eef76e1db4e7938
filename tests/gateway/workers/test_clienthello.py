"""What is read of a ClientHello before anybody answers it: by OpenSSL's own, by made ones, by what is none."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.workers.clienthello import MOST, RECORDS, hint, look, worker

GREASE = 0x3A3A


def openssl(protocols: list[str], name: str = "localhost") -> bytes:
    """The first flight of a real client."""
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def vector(size: int, content: bytes) -> bytes:
    return len(content).to_bytes(size, "big") + content


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, content)


def alpn(*names: bytes) -> bytes:
    return extension(16, vector(2, b"".join(vector(1, name) for name in names)))


def message(extensions: bytes | None, kind: int = 1, suites: bytes = b"\x13\x01") -> bytes:
    body = b"\x03\x03" + bytes(32) + vector(1, bytes(32)) + vector(2, suites) + vector(1, b"\0")
    if extensions is not None:
        body += vector(2, extensions)
    return bytes((kind,)) + vector(3, body)


def records(content: bytes, size: int = 16_384) -> bytes:
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"\x16\x03\x01" + vector(2, piece) for piece in pieces)


def read(data: bytes) -> tuple[bytes, ...]:
    """As the port does: more bytes where they are asked for."""
    at = 0
    while True:
        found = look(data[:at])
        if not isinstance(found, int):
            return found
        assert at < found <= len(data), "it goes on, and asks for no more than there is"
        at = found


def test_a_real_client_is_understood_with_hints_and_without() -> None:
    assert read(openssl(["http/1.1", hint(2)])) == (b"http/1.1", b"kulvert-worker-2")
    assert worker(read(openssl(["http/1.1", hint(2)]))) == 2
    assert read(openssl([])) == ()
    assert worker(read(openssl(["h2", "http/1.1"]))) is None


@pytest.mark.parametrize("size", [1, 3, 4, 7, 100])
def test_one_in_many_records_is_put_together_up_to_a_bound(size: int) -> None:
    hello = message(extension(0, b"x" * 30) + alpn(b"http/1.1", b"kulvert-worker-1"))
    found = read(records(hello, size))
    assert found == ((b"http/1.1", b"kulvert-worker-1") if len(hello) <= size * RECORDS else ())


def test_greased_extensions_and_protocols_are_passed_over() -> None:
    extensions = extension(GREASE, b"") + alpn(b"\x3a\x3a", b"kulvert-worker-0") + extension(GREASE, b"\0")
    found = read(records(message(extensions, suites=b"\x3a\x3a\x13\x01")))
    assert worker(found) == 0


def test_each_look_says_how_many_bytes_it_takes_to_go_on() -> None:
    data = records(message(alpn(b"http/1.1")))
    assert look(b"") == look(data[:4]) == 5
    assert look(data[:5]) == look(data[:-1]) == len(data)
    assert look(data) == look(data + b"more") == (b"http/1.1",)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0-x\r\n",
        b"\x80\x2e\x01\x03\x01",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x02\x01\x00\x05",
        b"\x17\x03\x03\x00\x05hello",
        b"\x16\x03\x01\xff\xff",
        records(message(alpn(b"x"), kind=2)),
        records(message(None)),
        records(b"\x01\xff\xff\xff" + bytes(100)),
        records(b"\x01\x00\x00\x02\x03\x03"),
        records(message(b"\x00\x10\x00")),
        records(message(extension(16, b""))),
        records(message(extension(16, b"\x00\x09\x08short"))),
        records(message(extension(16, b"\xff\xff"))),
    ],
    ids=[
        "http", "ssh", "ssl2", "empty-record", "old", "data", "long-record", "server-hello", "no-extensions",
        "huge-message", "cut-short", "half-extension", "empty-alpn", "short-protocol", "long-list",
    ],
)  # fmt: skip
def test_what_is_none_or_strange_offers_nothing_and_is_waited_for_no_more(data: bytes) -> None:
    assert look(data) == ()


def test_a_huge_one_is_not_waited_for() -> None:
    hello = message(extension(21, bytes(MOST)))
    assert read(records(hello)) == ()
    assert look(b"\x16\x03\x01" + (MOST).to_bytes(2, "big")) == (), "with its header it is too long"


@pytest.mark.parametrize(
    "name",
    [b"kulvert-worker-", b"kulvert-worker-01", b"kulvert-worker-1000", b"kulvert-worker-1x", b"xkulvert-worker-1"],
    ids=["none", "zero", "long", "tail", "head"],
)
def test_a_name_that_is_not_quite_a_hint_is_none(name: bytes) -> None:
    assert worker((name,)) is None


@given(st.binary(max_size=200), st.integers(0, 60))
def test_nothing_makes_it_raise_or_ask_for_less_than_there_is(tail: bytes, kept: int) -> None:
    for data in (tail, records(message(alpn(b"http/1.1")))[:kept] + tail, records(tail or b"x", 50)):
        found = look(data)
        assert isinstance(found, tuple) or len(data) < found <= MOST
