"""Two parsers must agree on every head: llhttp, and a strict reading of the same raw bytes.

The usual head has one plain spelling: `Name: value` lines, visible ASCII and single blanks where they are
due, no name twice. One possessive regular expression (linear, it never backtracks) proves that spelling and
finds the head's end; llhttp's pairs, written out again, must equal the bytes that came. Every other head is
read line by line by `strict_fields`, and llhttp's pairs must be the same. Measured, llhttp's callbacks into a
dict cost less than splitting here would, so agreement is nearly free."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from httptools import HttpParserError, HttpParserUpgrade

from tunnel.errors import HeadError

Headers = list[tuple[bytes, bytes]]
CRLF = b"\r\n"
TOKEN = b"!#$%&'*+-.^_`|~" + string.digits.encode() + string.ascii_letters.encode()
"""RFC 9110 §5.6.2: what a name, a method and an option in Connection are made of."""
VCHAR = bytes(range(0x21, 0x7F))
FIELD = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
"""RFC 9110 §5.5: what a value may hold. Control characters are out, CR, LF and NUL above all."""
PLAIN_FIELDS = rb"(?:[!#$%&'*+\-.^_`|~0-9a-zA-Z]++: (?! )[\x20-\x7e]++(?<! )\r\n)++\r\n"
"""The plain spelling of a head's fields, and its end."""


class Sink:
    """What httptools calls. A callback that is None is never called, and its absence need not be looked
    for."""

    on_message_begin = on_url = on_status = on_headers_complete = None
    on_body = on_message_complete = on_chunk_header = on_chunk_complete = None
    __slots__ = ("on_header",)

    def __init__(self, on_header: Callable[[bytes, bytes], object]) -> None:
        self.on_header = on_header


class LlhttpParser(Protocol):
    """A parser of httptools."""

    def feed_data(self, data: bytes) -> None:
        """Read these bytes, calling the sink."""


Llhttp = TypeVar("Llhttp", bound=LlhttpParser)
Make = Callable[[Sink], Llhttp]
"""A class of httptools: a sink goes in, a fresh parser comes out."""


class Fields(Generic[Llhttp]):
    """A head's fields as both parsers read them, with llhttp's view of what else there is to agree on."""

    __slots__ = ("derived", "headers", "index", "parser", "upgraded")

    def __init__(self, headers: Headers, index: dict[bytes, bytes], parser: Llhttp, upgraded: bool) -> None:
        self.headers = headers
        self.index = index
        self.parser = parser
        self.upgraded = upgraded
        self.derived: dict[object, object] = {}


def plain_fields(make: Make[Llhttp], raw: bytes, start: int, status: int) -> Fields[Llhttp] | None:
    """The fields of a head that PLAIN_FIELDS matched from `start`; None if a name is there twice, or llhttp
    differs."""
    seen: dict[bytes, bytes] = {}
    parser = make(Sink(seen.setdefault))
    upgraded = _feed(parser, raw, status)
    lines = CRLF.join(map(b": ".join, seen.items()))
    if start + len(lines) + 4 != len(raw) or not raw.startswith(lines, start) or raw.count(b"\n") != len(seen) + 2:
        return None
    index = dict(zip(b":".join(seen).lower().split(b":"), seen.values()))  # noqa: B905 - both come from `seen`
    return Fields(list(index.items()), index, parser, upgraded) if len(index) == len(seen) else None


def careful_fields(make: Make[Llhttp], raw: bytes, start: int, limit: int, status: int) -> Fields[Llhttp]:
    """The fields of any whole head, whose first line ends before `start`, or a refusal."""
    lines = raw[start:-4].split(CRLF) if len(raw) > start + 2 else []
    if len(lines) > limit:
        raise HeadError("too many header fields", 431 if status == 400 else status)
    headers = strict_fields(lines, status)
    pairs: Headers = []
    parser = make(Sink(lambda name, value: pairs.append((name, value))))
    upgraded = _feed(parser, raw, status)
    if [(name.lower(), value.strip(b" \t")) for name, value in pairs] != headers:
        raise HeadError("a head that can be read in two ways", status)
    return Fields(headers, dict(reversed(headers)), parser, upgraded)


def _feed(parser: LlhttpParser, raw: bytes, status: int) -> bool:
    """Have llhttp read exactly one head; True if it took it for an upgrade."""
    try:
        parser.feed_data(raw)
    except HttpParserUpgrade as upgrade:
        if upgrade.args[0] != len(raw):
            raise HeadError("malformed head", status) from None
        return True
    except HttpParserError:
        raise HeadError("malformed head", status) from None
    return False


def strict_fields(lines: Iterable[bytes], status: int = 400) -> Headers:
    """Field lines by RFC 9112 §5: `name ":" OWS value OWS`, no blank before the colon, no folding (§5.2)."""
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.translate(None, TOKEN):
            raise HeadError("malformed header name", status)
        value = value.strip(b" \t")
        if value.translate(None, FIELD):
            raise HeadError("control character in a header value", status)
        headers.append((name.lower(), value))
    return headers


def options(values: Iterable[bytes], status: int = 400) -> list[bytes]:
    """The options of Connection's lines, lower-cased (RFC 9110 §7.6.1). Empty elements are allowed
    (§5.6.1.2)."""
    found = [part.strip(b" \t") for value in values for part in value.lower().split(b",")]
    if b"".join(found).translate(None, TOKEN):
        raise HeadError("malformed Connection", status)
    return [option for option in found if option]


def single(headers: Headers, names: frozenset[bytes], status: int) -> None:
    """Refuse a second line of a field that is one value (RFC 9110 §5.3): the next hop could take the other
    one."""
    found = [name for name, _ in headers if name in names]
    if len(found) != len(set(found)):
        raise HeadError("a header field that must not be repeated", status)
