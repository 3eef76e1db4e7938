"""What we accept, llhttp and h11 accept and read the same: on mostly-valid heads, mutated.

The other way round, a head that one of them refuses is never accepted here. That we refuse more is fine.
"""

from __future__ import annotations

import h11
import httptools
from h11._connection import _body_framing, _keep_alive
from h11._readers import maybe_read_from_IDLE_client, maybe_read_from_SEND_RESPONSE_server
from h11._receivebuffer import ReceiveBuffer
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from tunnel.errors import HeadError
from tunnel.head import Framing, FramingKind, RequestHead, RequestReader, ResponseHead, ResponseReader
from tunnel.limits import HeadLimits

LEGAL = [
    b"Accept: */*",
    b"A: b",
    b"a:b",
    b"A:  \t b c \t",
    b"A: \xe9\x80",
    b"A:",
    b"Content-Length: 5",
    b"content-length: 0",
    b"Content-Length: 5 ",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: Chunked",
    b"TE: trailers",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: Upgrade, x",
    b"Upgrade: websocket",
    b"Expect: 100-continue",
]
DOUBTFUL = [
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Content-Length: 99999999999999999999999",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Proxy-Connection: upgrade",
    b"Upgrade: a, b",
    b"Expect: x",
    b"Host: h",
    b" folded",
    b"A : b",
    b"A",
    b": b",
]
MUTANTS = [b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"\x01", b"\x0b", b"\x7f", b"\x80", b":", b",", b"#"]
TARGETS = [
    b"/",
    b"/api/v1/pods?watch=1",
    b"/a%2f?b?c",
    b"*",
    b"http://h/",
    b"h:443",
    b"/\xc3\xa9",
    b"/a b",
    b"//x",
    b"/#f",
]
METHODS = [b"GET", b"POST", b"HEAD", b"PATCH", b"get", b"CONNECT", b"TRACE", b"PRI", b"X"]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1"]
STATUSES = [
    b"200 OK",
    b"200",
    b"200 ",
    b"100 Continue",
    b"101 x",
    b"204 x",
    b"304 x",
    b"404 \xe9",
    b"000 x",
    b"99 x",
    b"1000 x",
]

Mutations = list[tuple[int, int, bytes]]
legal = st.lists(st.sampled_from(LEGAL), max_size=4, unique=True)
doubtful = st.lists(st.sampled_from(LEGAL + DOUBTFUL), max_size=4)
fields = st.one_of(legal, legal, doubtful)
mutation = st.tuples(st.integers(0, 300), st.integers(0, 1), st.sampled_from(MUTANTS))
none: st.SearchStrategy[Mutations] = st.just([])
mutations = st.one_of(none, none, st.lists(mutation, max_size=2))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    likely = draw(st.integers(0, 3)) > 0
    method = draw(st.sampled_from(METHODS[:4] if likely else METHODS))
    target = draw(st.sampled_from(TARGETS[:3] if likely else TARGETS))
    line = b" ".join((method, target, draw(st.sampled_from(VERSIONS[:4] if likely else VERSIONS))))
    lines = draw(st.permutations([b"Host: g", *draw(fields)]))
    return mutated(b"\r\n".join([line, *lines, b"", b""]), draw(mutations))


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    likely = draw(st.integers(0, 3)) > 0
    version = draw(st.sampled_from(VERSIONS[:4] if likely else VERSIONS))
    line = version + b" " + draw(st.sampled_from(STATUSES[:8] if likely else STATUSES))
    return mutated(b"\r\n".join([line, *draw(fields), b"", b""]), draw(mutations))


def mutated(raw: bytes, changes: Mutations) -> bytes:
    for at, cut, new in changes:
        at = at % len(raw)
        raw = raw[:at] + new + raw[at + cut :]
    return raw


class Seen:
    """llhttp's whole reading of a head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def llhttp(parser: httptools.HttpRequestParser | httptools.HttpResponseParser, raw: bytes) -> bool:
    """Whether llhttp sees an upgrade; raises if it refuses the head."""
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        return True
    return False


def h11_fields(found: h11.Request | h11.Response | h11.InformationalResponse) -> list[tuple[bytes, bytes]]:
    return [(n, v.lower() if n == b"transfer-encoding" else v) for n, v in found.headers]


def our_fields(head: RequestHead | ResponseHead) -> list[tuple[bytes, bytes]]:
    return [(n, v.lower() if n == b"transfer-encoding" else v) for n, v in head.headers]


def h11_framing(method: bytes, found: h11.Request | h11.Response) -> Framing:
    kind, args = _body_framing(method, found)
    match kind, args:
        case "content-length", (length,):
            return Framing(FramingKind.LENGTH, int(length))
        case "chunked", _:
            return Framing(FramingKind.CHUNKED)
    return Framing(FramingKind.UNTIL_CLOSE)


def same_framing(ours: Framing, theirs: Framing) -> bool:
    return ours == theirs or (ours.empty and theirs.empty)


@settings(max_examples=1500, deadline=None)
@given(requests())
@example(b"GET / HTTP/1.1\r\nHost: g\r\nA: b\r\n\r\n")
def test_requests(raw: bytes) -> None:
    reader = RequestReader(HeadLimits())
    try:
        head = reader.feed(raw)
    except HeadError:
        event("refused")
        return
    if head is None:
        event("incomplete")
        return
    event("accepted")
    raw = raw[: len(raw) - len(reader.rest)]
    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    assert llhttp(parser, raw) is (head.upgrade is not None)
    assert (seen.complete, seen.url, seen.headers) == (True, head.target, head.headers)
    assert (parser.get_method(), parser.get_http_version().encode()) == (head.method, head.version)
    check_request_by_h11(head, raw)
    assert repr(RequestReader(HeadLimits())._careful(raw)) == repr(head)


def check_request_by_h11(head: RequestHead, raw: bytes) -> None:
    buffer = ReceiveBuffer()
    buffer += raw
    found = maybe_read_from_IDLE_client(buffer)
    assert found is not None
    assert len(buffer) == 0
    assert (found.method, found.target, found.http_version) == (head.method, head.target, head.version)
    assert h11_fields(found) == our_fields(head)
    assert same_framing(head.framing, h11_framing(b"", found))
    assert not (head.keep_alive and head.version == b"1.1" and not _keep_alive(found))


@settings(max_examples=1500, deadline=None)
@given(answers(), st.sampled_from([b"GET", b"HEAD"]))
def test_answers(raw: bytes, method: bytes) -> None:
    reader = ResponseReader(HeadLimits(), method)
    try:
        head = reader.feed(raw)
    except HeadError:
        event("refused")
        return
    if head is None:
        event("incomplete")
        return
    event("accepted")
    raw = raw[: len(raw) - len(reader.rest)]
    seen = Seen()
    parser = httptools.HttpResponseParser(seen)
    assert llhttp(parser, raw) is (head.upgrade is not None)
    assert (seen.complete, seen.headers) == (True, head.headers)
    assert (parser.get_status_code(), parser.get_http_version().encode()) == (head.status, head.version)
    check_answer_by_h11(head, raw, method)
    assert repr(ResponseReader(HeadLimits(), method)._careful(raw)) == repr(head)


def check_answer_by_h11(head: ResponseHead, raw: bytes, method: bytes) -> None:
    buffer = ReceiveBuffer()
    buffer += raw
    found = maybe_read_from_SEND_RESPONSE_server(buffer)
    assert found is not None
    assert len(buffer) == 0
    assert (found.status_code, found.reason, found.http_version) == (head.status, head.reason, head.version)
    assert h11_fields(found) == our_fields(head)
    if isinstance(found, h11.Response):
        assert same_framing(head.framing, h11_framing(method, found))
        assert not (head.keep_alive and head.version == b"1.1" and not _keep_alive(found))


@given(
    st.lists(
        st.tuples(
            st.from_regex(rb"[xX]-[-!#$%&'*+.^_`|~0-9a-zA-Z]{1,9}", fullmatch=True),
            st.from_regex(rb"[!-~\x80-\xff]([\t -~\x80-\xff]{0,9}[!-~\x80-\xff])?", fullmatch=True),
        ),
        max_size=8,
    ),
    st.sampled_from([b": ", b":", b":\t", b":  "]),
)
def test_every_legal_field_is_accepted_as_it_is(pairs: list[tuple[bytes, bytes]], colon: bytes) -> None:
    lines = [b"Host: g", *(name + colon + value for name, value in pairs)]
    head = RequestReader(HeadLimits()).feed(b"\r\n".join([b"GET / HTTP/1.1", *lines, b"", b""]))
    assert head is not None
    assert head.headers[1:] == [(name.lower(), value) for name, value in pairs]
    assert all(head.get(name) == head.get_all(name)[0] for name, _ in head.headers)
