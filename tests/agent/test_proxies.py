"""HTTPS_PROXY and NO_PROXY, as Go's httpproxy reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.address import Address, BadAddress
from agent.proxies import Proxies, Proxy

PROXY = "http://proxy.test:3128"


def direct(address: str, no_proxy: str) -> bool:
    """Whether an address goes past the proxy."""
    return Proxies.of({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}).for_address(Address.parse(address)) is None


@pytest.mark.parametrize(
    ("address", "no_proxy", "expected"),
    [
        ("a.test", "", False),
        ("a.test", "*", True),
        ("a.test", "a.test", True),
        ("x.a.test", "a.test", True),
        ("xa.test", "a.test", False),
        ("a.test", ".a.test", False),
        ("x.a.test", ".a.test", True),
        ("x.a.test", "*.a.test", True),
        ("a.test", "b.test, A.test", True),
        ("a.test:8443", "a.test:8443", True),
        ("a.test", "a.test:8443", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:6443", "10.1.2.3:6443", True),
        ("10.1.2.3", "2.3", False),
        ("[fd00::1]", "fd00::/8", True),
        ("[fd00::1]:8443", "[fd00::1]:8443", True),
        ("localhost", "", True),
        ("127.0.0.1", "", True),
        ("[::1]", "", True),
        ("a.test", ",,", False),
    ],
)
def test_what_goes_past_the_proxy(address: str, no_proxy: str, expected: bool) -> None:
    assert direct(address, no_proxy) is expected


def test_no_proxy_without_a_proxy_means_nothing() -> None:
    assert Proxies.of({"NO_PROXY": "*"}).for_address(Address("a.test")) is None
    assert Proxies.of({"https_proxy": "p.test:1"}).for_address(Address("a.test")) == Proxy(Address("p.test", 1))


def test_a_proxy_with_a_user_hides_the_password() -> None:
    proxy = Proxy.parse("https://me:s%3Acret@proxy.test")
    assert (proxy.address, proxy.tls, proxy.authorization) == (Address("proxy.test", 443), True, "Basic bWU6czpjcmV0")
    assert "bWU" not in repr(proxy)


@pytest.mark.parametrize(
    "text", ["socks5://me:secret@a.test", "http://", "http://me:secret@a:b", "http://a.test/secret"]
)
def test_what_is_no_proxy_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(BadAddress) as caught:
        Proxy.parse(text)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=40))
def test_no_exception_list_makes_it_fail(no_proxy: str) -> None:
    if "\0" not in no_proxy:
        for address in ("a.test", "10.0.0.1", "[fd00::1]"):
            direct(address, no_proxy)
