"""Who is at the other end of a connection, as far as TCP and TLS know: fixed when the connection is made."""

from __future__ import annotations

import asyncio
import ssl

from auth.frontproxy import FrontProxies
from auth.identity import Credentials
from tunnel.impersonate import Pairs


class Peer:
    """Address and verified certificate, and the credentials of the last request, since the next one's are the same."""

    __slots__ = ("_authorization", "_credentials", "_judged_by", "_proxies", "_remote", "address", "certificate")

    def __init__(self, address: str, certificate: bytes | None) -> None:
        self.address = address
        self.certificate = certificate
        self._authorization: bytes | None = None
        self._remote: Pairs | None = None
        self._credentials: Credentials | None = None
        self._judged_by: FrontProxies | None = None
        self._proxies = False

    @classmethod
    def of(cls, transport: asyncio.BaseTransport) -> Peer:
        """Read what a transport knows. Without TLS there is no certificate."""
        name = transport.get_extra_info("peername")
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        return cls(str(name[0]) if isinstance(name, tuple) and name else "", certificate)

    def credentials(self, authorization: bytes | None, remote: Pairs | None = None) -> Credentials:
        """What this peer shows together with an Authorization header, and with a front proxy's headers."""
        kept = self._credentials
        if kept is None or authorization != self._authorization or remote != self._remote:
            kept = self._credentials = Credentials(authorization, self.certificate, remote)
            self._authorization, self._remote = authorization, remote
        return kept

    def proxies(self, trusted: FrontProxies) -> bool:
        """Whether this is one of the front proxies. Its certificate is looked at once for each list of them."""
        if self._judged_by is not trusted:
            self._judged_by = trusted
            self._proxies = self.certificate is not None and trusted.recognise_der(self.certificate)
        return self._proxies
