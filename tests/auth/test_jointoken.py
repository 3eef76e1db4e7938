"""Join tokens: what is stored cannot be handed over, and what is proven need not be sent."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.jointoken import JoinToken, JoinTokenInvalid

NOW = 1000.0
TOKEN = JoinToken.create(random.Random(1).randbytes)
OTHER = JoinToken.create(random.Random(2).randbytes)
STORED = TOKEN.stored("prod-1", NOW + 60)


@given(st.integers())
def test_what_is_written_is_read_again(seed: int) -> None:
    token = JoinToken.create(random.Random(seed).randbytes)
    assert JoinToken.parse(token.text()) == token
    assert token.text() == f"kvt_{token.id}.{token.text().partition('.')[2]}"


@given(st.text(max_size=80))
def test_other_texts_are_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(JoinTokenInvalid) as refused:
        JoinToken.parse(text)
    assert not text.strip() or len(text) < 12 or text not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text.upper(),
        lambda text: text.replace(".", ""),
        lambda text: text.replace("kvt_", "kvx_"),
        lambda text: text[:0],
    ],
)
def test_a_token_copied_badly_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(JoinTokenInvalid):
        JoinToken.parse(change(TOKEN.text()))


def test_the_store_holds_no_secret_and_nothing_shows_one() -> None:
    secret = TOKEN.text().partition(".")[2]
    assert TOKEN.secret not in (STORED.key, STORED.id.encode())
    for shown in (repr(TOKEN), str(TOKEN), repr(STORED), str(STORED)):
        assert secret not in shown
        assert repr(TOKEN.secret) not in shown
        assert repr(STORED.key) not in shown


def test_the_key_is_the_tokens_own() -> None:
    assert STORED.key == TOKEN.key()
    assert OTHER.key() != TOKEN.key()
    assert JoinToken(OTHER.id, TOKEN.secret).key() != TOKEN.key()
