"""Where a replica is reached by others: HOST:PORT (by TLS), or unix:/PATH for another process of the same machine."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tunnel.errors import TunnelError

_UNIX: Final = "unix:"
_LONGEST_PATH: Final = 107
"""sun_path, less its final zero (unix(7))."""


_LONGEST_NAME: Final = 253
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


class BadPeerAddress(TunnelError):
    """It is no address of a replica, or its directory is not private; the text says why."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """`path` is set for a Unix socket, `host` and `port` otherwise."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> PeerAddress:
        """Raises BadPeerAddress."""
        if text.startswith(_UNIX):
            path = text.removeprefix(_UNIX)
            if not path.startswith("/") or "\0" in path or len(path.encode(errors="replace")) > _LONGEST_PATH:
                raise BadPeerAddress(f"unix:/PATH has an absolute path of at most {_LONGEST_PATH} bytes")
            return cls(path=path)
        host, _, port = text.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65_536:
            raise BadPeerAddress("a replica's address reads HOST:PORT, [IPv6]:PORT or unix:/PATH")
        if not _is_host(host):
            raise BadPeerAddress(
                "a replica's address names a host that cannot be: neither an IP address nor a DNS name"
            )
        return cls(host, int(port))

    def check_private(self) -> None:
        """There is no TLS on a Unix socket: its directory says who may come. Raises BadPeerAddress."""
        parent = Path(self.path).parent
        found = parent.stat()
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise BadPeerAddress(f"{parent} must be this user's own, and closed to others (mode 0700)")

    def remove_stale(self) -> None:
        """The socket of a process that has ended is in the way of the next. Raises OSError."""
        path = Path(self.path)
        if path.is_socket():
            path.unlink()


def _is_host(text: str) -> bool:
    """The resolver raises more than OSError for what is none."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        name = text.removesuffix(".")
        return len(name) <= _LONGEST_NAME and all(_LABEL.fullmatch(label) for label in name.split("."))
    return True
