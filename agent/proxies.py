"""Which proxy a connection goes through: HTTPS_PROXY and NO_PROXY, as Go's `httpproxy` reads them."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from agent.address import Address, BadAddress


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that takes CONNECT. `tls`: it is reached by https. The credential stays out of every repr."""

    address: Address
    tls: bool = False
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """From a URL or `host:port`. Raises BadAddress, without the URL: it may hold a password."""
        url = urlsplit(text if "://" in text else f"http://{text}")
        try:
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        if url.scheme not in ("http", "https") or not host or url.path.strip("/"):
            raise BadAddress("HTTPS_PROXY is not http(s)://[user:password@]host[:port]")
        tls = url.scheme == "https"
        return cls(Address(host, port or (443 if tls else 80)), tls, _basic(url.username, url.password))


def _basic(user: str | None, password: str | None) -> str | None:
    if user is None:
        return None
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy of an environment, and what goes past it."""

    proxy: Proxy | None = None
    exceptions: tuple[str, ...] = ()

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Proxies:
        """From an environment; upper case is looked at first. Raises BadAddress."""
        text = env.get("HTTPS_PROXY") or env.get("https_proxy") or ""
        without = env.get("NO_PROXY") or env.get("no_proxy") or ""
        exceptions = tuple(part for part in (p.strip().lower() for p in without.split(",")) if part)
        return cls(Proxy.parse(text) if text.strip() else None, exceptions)

    def for_address(self, address: Address) -> Proxy | None:
        """The proxy for an address, or None to go there directly."""
        if self.proxy is None or _loopback(address.host):
            return None
        return None if any(_excepted(address, exception) for exception in self.exceptions) else self.proxy


def _loopback(host: str) -> bool:
    ip = _ip(host)
    return host == "localhost" or (ip is not None and ip.is_loopback)


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _excepted(address: Address, exception: str) -> bool:
    """`*`; an IP address, a CIDR; a domain with all below it, or with a leading dot only those; each with a
    port or without.
    """
    if exception == "*":
        return True
    host, port = _split(exception)
    if port is not None and port != address.port:
        return False
    ip = _ip(address.host)
    if ip is not None:
        return _holds(host, ip)
    if host.startswith("*."):
        host = host[1:]
    if host.startswith("."):
        return address.host.endswith(host)
    return address.host == host or address.host.endswith("." + host)


def _split(exception: str) -> tuple[str, int | None]:
    if exception.startswith("["):
        host, _, port = exception[1:].partition("]")
        return host, int(port[1:]) if port[1:].isdigit() else None
    host, colon, port = exception.rpartition(":")
    if colon and port.isdigit() and ":" not in host:
        return host, int(port)
    return exception, None


def _holds(network: str, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return ip in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
