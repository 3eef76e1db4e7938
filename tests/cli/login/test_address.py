"""Where secrets may go, and what may be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.failures import Failed
from cli.login.address import gateway, origin, plain, secure


@pytest.mark.parametrize("url", ["https://x", "https://x:8443/path?q=1", "https://[::1]:1/"])
def test_https_is_good(url: str) -> None:
    assert secure(url) == url


@pytest.mark.parametrize("url", ["http://localhost:1", "http://127.0.0.1/dex", "http://[::1]:5556"])
def test_http_is_good_on_this_machine_where_that_is_allowed(url: str) -> None:
    assert secure(url, loopback=True) == url
    assert secure(url) is None


@pytest.mark.parametrize(
    "url",
    ["", "http://x", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "https://u@x", "https://x#f",
     "https://x\\@y", "https://x y", "https://x\n", "https://x:99999", "https://é", "javascript:1", None, 3,
     "https://" + "x" * 3_000],
)  # fmt: skip
def test_all_else_is_not(url: object) -> None:
    assert secure(url, loopback=True) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Gateway.Example/", "https://gateway.example"),
        ("https://x:443", "https://x"),
        ("https://x:8443/", "https://x:8443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_a_gateway_has_one_spelling(url: str, expected: str) -> None:
    assert gateway(url) == expected
    assert origin(url + "/clusters/a".removeprefix("/" if url.endswith("/") else "")) == expected


@pytest.mark.parametrize("url", ["x", "http://x", "https://x/clusters/a", "https://x?a", "https://u:p@x"])
def test_what_is_no_gateway_is_refused(url: str) -> None:
    with pytest.raises(Failed, match="is not https://HOST"):
        gateway(url)


@given(st.text())
def test_what_is_shown_is_short_and_moves_no_cursor(text: str) -> None:
    shown = plain(text, 50)
    assert len(shown) <= 50
    assert shown.isprintable()
