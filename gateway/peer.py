"""Who is at the other end of a connection, as far as TCP and TLS know: fixed when the connection is made."""

from __future__ import annotations

import asyncio
import ssl

from auth.identity import Credentials


class Peer:
    """Address and verified certificate, and the credentials of the last request, since the next one's are the same."""

    __slots__ = ("_authorization", "_credentials", "address", "certificate")

    def __init__(self, address: str, certificate: bytes | None) -> None:
        self.address = address
        self.certificate = certificate
        self._authorization: bytes | None = None
        self._credentials: Credentials | None = None

    @classmethod
    def of(cls, transport: asyncio.BaseTransport) -> Peer:
        """Read what a transport knows. Without TLS there is no certificate."""
        name = transport.get_extra_info("peername")
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        return cls(str(name[0]) if isinstance(name, tuple) and name else "", certificate)

    def credentials(self, authorization: bytes | None) -> Credentials:
        """What this peer shows together with an Authorization header."""
        kept = self._credentials
        if kept is None or authorization != self._authorization:
            kept = self._credentials = Credentials(authorization, self.certificate)
            self._authorization = authorization
        return kept
