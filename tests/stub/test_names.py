"""What an agent may have dialled."""

from __future__ import annotations

import pytest

from stub.names import named


@pytest.mark.parametrize(
    ("dialled", "names", "right"),
    [
        ("anything", (), True),
        ("kulvert.test", ("kulvert.test",), True),
        ("kulvert.test:8443", ("kulvert.test",), True),
        ("Kulvert.Test:8443", ("kulvert.TEST",), True),
        ("kulvert.test:8443", ("kulvert.test:8443",), True),
        ("kulvert.test:1", ("kulvert.test:8443",), False),
        ("kulvert.test.evil", ("kulvert.test",), False),
        ("a.kulvert.test", ("kulvert.test",), False),
        ("a.kulvert.test:8443", ("*.kulvert.test",), True),
        ("a.b.kulvert.test", ("*.kulvert.test",), True),
        ("kulvert.test", ("*.kulvert.test",), False),
        (".kulvert.test", ("*.kulvert.test",), False),
        ("xkulvert.test", ("*.kulvert.test",), False),
        ("[::1]:8443", ("::1", "localhost"), True),
        ("[::1", ("::1",), True),
        ("[::2]", ("::1",), False),
        ("127.0.0.1:9", ("localhost", "127.0.0.1"), True),
        ("", ("localhost",), False),
    ],
)
def test_a_name_is_one_of_the_servers(dialled: str, names: tuple[str, ...], right: bool) -> None:
    assert named(dialled, names) is right
