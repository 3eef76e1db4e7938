"""What is in a Secret is taken whole or not at all, and an older replica keeps what a later one put there."""

from __future__ import annotations

import pytest

from gateway.mirror.document import MOST_BYTES, BadDocument, Document, Shape, carried, dumped, name_of, read, rows_of
from gateway.mirror.kinds import Row, Table

WORDS = Shape(Table("word", "words", ("book",)), ("book", "text", "note"), {"note": ""}, ("book", "text"))
SHAPES = {"word": WORDS}


def document(*rows: Row, version: int = 1, **tables: tuple[Row, ...]) -> Document:
    return Document("book", ("b",), {"words": version}, {"word": rows, **tables})


def test_all_that_sqlite_keeps_comes_back_as_it_was() -> None:
    row = {"book": "b", "text": "ü\n", "data": b"\x00\xff", "none": None, "real": 0.1, "end": float("inf"), "n": -5}
    assert read(dumped(document(row))) == document(row)


def test_the_same_rows_give_the_same_bytes_and_another_installation_another_name() -> None:
    one, other = {"book": "b", "text": "x"}, {"text": "x", "book": "b"}
    assert dumped(document(one)) == dumped(document(other))
    assert name_of("kulvert", "book", ("b",)) != name_of("other", "book", ("b",))
    assert len(name_of("kulvert", "revoked-credential", ("x" * 1000,))) < 63


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format":1}',
        b'{"format":1,"kind":"book","key":[],"versions":{},"rows":{}}',
        b'{"format":1,"kind":"book","key":["b"],"versions":{},"rows":{"word":[[]]}}',
        b'{"format":1,"kind":"book","key":["b"],"versions":{},"rows":{"word":[{"book":{"other":1}}]}}',
        b'{"format":1,"kind":"book","key":["b"],"versions":{},"rows":{"word":[{"book":[1]}]}}',
        b'{"format":1,"kind":7,"key":["b"],"versions":{},"rows":{}}',
    ],
    ids=range(9),
)
def test_what_is_no_document_is_refused(text: bytes) -> None:
    with pytest.raises(BadDocument, match="malformed"):
        read(text)


def test_a_later_form_and_one_that_is_too_large_are_refused_by_name() -> None:
    with pytest.raises(BadDocument, match="upgrade this replica"):
        read(b'{"format":2}')
    with pytest.raises(BadDocument, match="more than"):
        read(b" " * (MOST_BYTES + 1))
    with pytest.raises(BadDocument, match="more than"):
        dumped(document({"book": "b", "text": "x" * MOST_BYTES}))


def test_a_row_of_an_older_release_has_the_defaults_of_new_columns() -> None:
    assert rows_of(document({"book": "b", "text": "x"}), SHAPES) == {
        "word": {("b", "x"): {"book": "b", "text": "x", "note": ""}}
    }


def test_a_row_that_cannot_be_or_belongs_elsewhere_refuses_the_document() -> None:
    with pytest.raises(BadDocument, match="has no key"):
        rows_of(document({"book": "b"}), SHAPES)
    with pytest.raises(BadDocument, match="twice"):
        rows_of(document({"book": "b", "text": "x"}, {"book": "b", "text": "x"}), SHAPES)
    with pytest.raises(BadDocument, match="another document"):
        rows_of(document({"book": "c", "text": "x"}), SHAPES)


def test_what_a_later_release_put_there_is_carried_along() -> None:
    later = document({"book": "b", "text": "x", "note": "n", "new": 7}, version=3, another=({"a": 1},))
    made = document({"book": "b", "text": "x", "note": "changed"}, {"book": "b", "text": "y", "note": ""}, version=2)
    found = carried(made, later, SHAPES)
    assert found.versions == {"words": 3}
    assert found.tables["another"] == ({"a": 1},)
    assert found.tables["word"] == (
        {"book": "b", "text": "x", "note": "changed", "new": 7},
        {"book": "b", "text": "y", "note": ""},
    )


def test_no_row_is_in_a_repr() -> None:
    assert "secret" not in repr(document({"book": "b", "text": "secret"}))
