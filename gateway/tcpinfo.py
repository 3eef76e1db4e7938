"""What the kernel knows of a connection that we do not read, or that does not read us (Linux's TCP_INFO)."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, NamedTuple

_OPTION: int | None = getattr(socket, "TCP_INFO", None)
_FIELDS = struct.Struct("=B23xI92xQ16xI")  # tcpi_state, tcpi_unacked, tcpi_bytes_acked, tcpi_notsent_bytes
_CLOSE, _CLOSE_WAIT, _LAST_ACK, _CLOSING = 7, 8, 9, 11


class TcpInfo(NamedTuple):
    """One look."""

    ended: bool
    """The peer has ended its side (its FIN or RST is here, maybe behind bytes that nobody has read)."""
    reset: bool
    """The connection is no more, in either direction."""
    acked: int
    """Bytes of ours that have arrived at the peer's kernel, in all."""
    pending: bool
    """Some have not."""


def tcp_info(transport: asyncio.BaseTransport) -> TcpInfo | None:
    """Look. None: there is no such socket, or a platform that does not tell."""
    sock: Any = transport.get_extra_info("socket")
    if sock is None or _OPTION is None:
        return None
    try:
        raw: bytes = sock.getsockopt(socket.IPPROTO_TCP, _OPTION, _FIELDS.size)
    except OSError:
        return None
    if len(raw) < _FIELDS.size:
        return None
    state, unacked, acked, unsent = _FIELDS.unpack(raw)
    return TcpInfo(state in (_CLOSE, _CLOSE_WAIT, _LAST_ACK, _CLOSING), state == _CLOSE, acked, bool(unacked or unsent))
