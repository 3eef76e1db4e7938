"""Heads that are written: nothing hop-by-hop goes on, and no value can begin a line of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import HeadError
from tunnel.head import (
    RequestReader,
    ResponseReader,
    connection_tokens,
    end_to_end,
    render_request_head,
    render_response_head,
)
from tunnel.limits import HeadLimits


def test_hop_by_hop_fields_and_those_that_connection_names_are_dropped() -> None:
    headers = [
        (b"host", b"g"),
        (b"connection", b"Keep-Alive, , X-Secret"),
        (b"keep-alive", b"timeout=5"),
        (b"x-secret", b"1"),
        (b"connection", b"impersonate-USER"),
        (b"impersonate-user", b"eve"),
        (b"te", b"trailers"),
        (b"trailer", b"x"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"proxy-authorization", b"x"),
        (b"proxy-authenticate", b"x"),
        (b"proxy-connection", b"x"),
        (b"accept", b"*/*"),
    ]
    assert connection_tokens(headers) == {b"keep-alive", b"x-secret", b"impersonate-user"}
    assert end_to_end(headers) == [(b"host", b"g"), (b"accept", b"*/*")]
    assert connection_tokens([]) == frozenset()


def test_a_request_is_written_as_it_is_read() -> None:
    headers = [(b"host", b"g"), (b"a", b""), (b"a", b"\xe9 b")]
    raw = render_request_head(b"GET", b"/a%2f?b", headers)
    assert raw == b"GET /a%2f?b HTTP/1.1\r\nhost: g\r\na: \r\na: \xe9 b\r\n\r\n"
    head = RequestReader(HeadLimits()).feed(raw)
    assert head is not None
    assert head.headers == headers


def test_an_answer_is_written_as_it_is_read() -> None:
    assert render_response_head(204, b"No Content", []) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert render_response_head(200, b"", [(b"a", b"b")]) == b"HTTP/1.1 200 \r\na: b\r\n\r\n"
    assert ResponseReader(HeadLimits()).feed(render_response_head(200, b"OK", [])) is not None


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"\r\n", b"\0", b"\r\nx: y", b"\n\r"])
def test_nothing_that_ends_a_line_is_written(bad: bytes) -> None:
    for method, target, name, value in [
        (b"GET" + bad, b"/", b"a", b"b"),
        (b"GET", b"/" + bad, b"a", b"b"),
        (b"GET", b"/", b"a" + bad, b"b"),
        (b"GET", b"/", b"a", b"b" + bad + b"c"),
    ]:
        with pytest.raises(HeadError):
            render_request_head(method, target, [(name, value)])
    with pytest.raises(HeadError):
        render_response_head(200, b"OK" + bad, [])


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b":", b"a: b", b"\xe9"])
def test_only_tokens_are_written_as_names(name: bytes) -> None:
    for headers in ([(name, b"v")], [(b"a", b"b"), (name, b"v"), (b"c", b"d")]):
        with pytest.raises(HeadError):
            render_response_head(200, b"OK", headers)


@pytest.mark.parametrize(("method", "target"), [(b"GET /", b"/"), (b"GET", b"/ HTTP/1.0"), (b"GET", b"")])
def test_a_request_line_has_three_parts(method: bytes, target: bytes) -> None:
    with pytest.raises(HeadError):
        render_request_head(method, target, [])


@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4)), max_size=3), st.binary(max_size=4))
def test_what_is_written_has_exactly_the_lines_put_in(pairs: list[tuple[bytes, bytes]], reason: bytes) -> None:
    try:
        raw = render_response_head(200, reason, pairs)
    except HeadError:
        return
    assert raw.split(b"\r\n")[1:-2] == [name + b": " + value for name, value in pairs]
