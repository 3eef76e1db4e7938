"""Where a stub is, and whether the configuration allows to go there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tunnel.errors import TunnelError

HTTPS = 443
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_IPV6 = re.compile(r"[0-9a-f:.]{2,45}")


class BadAddress(TunnelError):
    """No address, or one that must not be dialled; the text is for whoever configures."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host (a name, or an IP address without brackets) and a port."""

    host: str
    port: int = HTTPS

    def __str__(self) -> str:
        """As it stands in a Host header and in the link's `name`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS else f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """From `host`, `host:port`, `[v6]:port`, or an https URL without a path. Raises BadAddress."""
        rest = text.strip().lower().removeprefix("https://").removesuffix("/")
        if rest.startswith("["):
            host, bracket, port = rest[1:].partition("]")
            valid = bool(bracket and _IPV6.fullmatch(host) and (not port or port.startswith(":")))
            port = port[1:]
        else:
            host, _, port = rest.partition(":")
            valid = _NAME.fullmatch(host) is not None
        if not valid or (port and not port.isdigit()) or not 0 < int(port or HTTPS) < 65_536:
            raise BadAddress(f"not an address of a server: {text!r} (https://HOST[:PORT] is expected)")
        return cls(host, int(port or HTTPS))


@dataclass(frozen=True, slots=True)
class Allowed:
    """The configured servers, and further names for own links: exact ones, or `*.domain` for all names
    below it.
    """

    servers: tuple[Address, ...]
    names: tuple[str, ...] = ()

    def check(self, address: Address) -> Address:
        """The address, if it may be dialled, whatever a `welcome` or a refusal said. Raises BadAddress."""
        if address in self.servers or any(_matches(address.host, name) for name in self.names):
            return address
        raise BadAddress(f"the configuration does not allow {address}: add its name to linkNames if it is right")

    def told(self, url: str, server_name: str = "") -> Target:
        """Where a server sends this agent to, if it may go there. Raises BadAddress."""
        address = self.check(Address.parse(url))
        if server_name and server_name != address.host:
            hosts = {server.host for server in self.servers}
            if server_name not in hosts and not any(_matches(server_name, name) for name in self.names):
                raise BadAddress(f"the configuration does not allow {server_name!r} as a server's name: see linkNames")
        return Target(address, server_name=server_name)


@dataclass(frozen=True, slots=True)
class Target:
    """One place to dial: an address, and which of the IP addresses of its name (empty: whoever connects looks it up).
    `server_name` is what the certificate must say there, where a server has told so (empty: as is configured), and
    `hint` the further ALPN entry that leads to one of several processes there.
    """

    address: Address
    ip: str = ""
    server_name: str = ""
    hint: str = ""

    def __str__(self) -> str:
        """For people."""
        return f"{self.address} ({self.ip})" if self.ip and self.ip != self.address.host else str(self.address)


def _matches(host: str, pattern: str) -> bool:
    pattern = pattern.lower()
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern


def parse_all(texts: Iterable[str]) -> tuple[Address, ...]:
    """Several addresses, each once, in their order. Raises BadAddress when there is none."""
    found = tuple(dict.fromkeys(Address.parse(text) for text in texts))
    if not found:
        raise BadAddress("no server is configured")
    return found
