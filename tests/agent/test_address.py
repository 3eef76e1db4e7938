"""Addresses, and which of them may be dialled."""

from __future__ import annotations

import pytest

from agent.address import Address, Allowed, BadAddress, parse_all


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("https://Kulvert.example.com", "kulvert.example.com", 443, "kulvert.example.com"),
        ("https://a.test:8443/", "a.test", 8443, "a.test:8443"),
        ("a.test:443", "a.test", 443, "a.test"),
        (" 10.0.0.1:5 ", "10.0.0.1", 5, "10.0.0.1:5"),
        ("[fd00::1]:8443", "fd00::1", 8443, "[fd00::1]:8443"),
        ("https://[fd00::1]", "fd00::1", 443, "[fd00::1]"),
    ],
)
def test_addresses_that_are_understood(text: str, host: str, port: int, shown: str) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, shown)
    assert Address.parse(shown) == address


@pytest.mark.parametrize(
    "text",
    ["", "http://a.test", "https://a.test/path", "a:b", "a:0", "a:70000", "a b", "a@b", "[fd00::1", "[x]:1", "-a",
     "[fd00::1]x", "a\r\nb", "a..b"],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(BadAddress):
        Address.parse(text)


def test_no_server_is_an_error_and_each_is_kept_once() -> None:
    assert len(parse_all(["a.test", "https://a.test", "b.test"])) == 2
    with pytest.raises(BadAddress):
        parse_all([])


def test_only_configured_servers_and_names_are_allowed() -> None:
    allowed = Allowed(parse_all(["a.test:8443"]), ("exact.test", "*.links.test"))
    for text in ("a.test:8443", "exact.test:9000", "x.links.test", "x.y.links.test:1"):
        assert allowed.check(Address.parse(text)) == Address.parse(text)
    for text in (
        "a.test",
        "a.test:1",
        "links.test",
        "xlinks.test",
        "yxlinks.test",
        "exact.test.evil.test",
        "x.links.test.evil.test",
    ):
        with pytest.raises(BadAddress):
            allowed.check(Address.parse(text))
