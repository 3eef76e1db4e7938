"""Addresses, and which of them may be dialled."""

from __future__ import annotations

import pytest

from agent.address import Address, Allowed, BadAddress, Target, parse_all


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


ALLOWED = Allowed((Address("stub.test"), Address("other.test", 8444)), ("*.replicas.test", "link.test"))


@pytest.mark.parametrize(
    ("url", "server_name", "target"),
    [
        ("https://other.test:8444", "", Target(Address("other.test", 8444))),
        ("https://stub-1.replicas.test:8444/", "", Target(Address("stub-1.replicas.test", 8444))),
        ("https://link.test", "link.test", Target(Address("link.test"), server_name="link.test")),
        ("https://link.test", "stub.test", Target(Address("link.test"), server_name="stub.test")),
        ("https://link.test", "a.replicas.test", Target(Address("link.test"), server_name="a.replicas.test")),
    ],
)
def test_where_a_server_sends_us_is_followed_within_the_configuration(
    url: str, server_name: str, target: Target
) -> None:
    assert ALLOWED.told(url, server_name) == target


@pytest.mark.parametrize(
    ("url", "server_name"),
    [
        ("https://evil.test", ""),
        ("https://other.test", ""),
        ("https://link.test", "evil.test"),
        ("https://link.test", "replicas.test"),
        ("http://link.test", ""),
        ("https://link.test/path", ""),
        ("", ""),
    ],
)
def test_and_not_beyond_it(url: str, server_name: str) -> None:
    with pytest.raises(BadAddress):
        ALLOWED.told(url, server_name)


def test_a_target_says_which_of_a_names_addresses_it_is() -> None:
    assert str(Target(Address("stub.test", 8444), "10.0.0.1")) == "stub.test:8444 (10.0.0.1)"
    assert str(Target(Address("10.0.0.1", 8444), "10.0.0.1")) == "10.0.0.1:8444"
