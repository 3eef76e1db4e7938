"""What of a request is a credential."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Final

from auth.frontproxy import FrontProxies
from auth.identity import Credentials
from gateway import status
from gateway.failures import Refused
from gateway.peer import Peer
from gateway.upstreamhead import bearer_of
from tunnel.head import RequestHead

_PROTOCOL: Final = b"sec-websocket-protocol"
_BASE64URL: Final = re.compile(rb"[A-Za-z0-9_-]+")


def no_front_proxies() -> FrontProxies | None:
    """Where none is configured."""
    return None


def credentials_of(head: RequestHead, peer: Peer, front: Callable[[], FrontProxies | None]) -> Credentials:
    """All of it. `front` gives the front proxies that are trusted now; it is asked for peers with a certificate alone.

    Raises Refused (401), and AuthenticationFailed where a front proxy's headers can be read in two ways.
    """
    authorization = authorization_of(head)
    if peer.certificate is None or (trusted := front()) is None or not peer.proxies(trusted):
        return peer.credentials(authorization)
    return peer.credentials(authorization, trusted.headers.collected(head.headers))


def authorization_of(head: RequestHead) -> bytes | None:
    """The Authorization header, or a browser's way around it: a bearer token among the WebSocket subprotocols.

    The rules are kube-apiserver's (`authentication/request/websocket`): base64url without padding, of UTF-8, once, and
    beside another subprotocol that the answer can name. Raises Refused (401) where such a token is malformed.
    """
    value = head.get(b"authorization")
    if value is not None or head.upgrade != b"websocket":
        return value
    protocols = head.get_all(_PROTOCOL)
    try:
        token = bearer_of(protocols)
        return None if token is None else b"Bearer " + _decoded(token, protocols)
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except binascii.Error:
        reason = "its base64url is wrong"
    except ValueError as error:
        reason = str(error)
    raise Refused(status.UNAUTHENTICATED, f"the bearer token in Sec-WebSocket-Protocol is malformed: {reason}")


def _decoded(token: bytes, protocols: list[bytes]) -> bytes:
    if not _BASE64URL.fullmatch(token):
        raise ValueError("it is not base64url without padding")
    decoded = base64.b64decode(token + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    decoded.decode()
    if sum(len([part for part in value.split(b",") if part.strip(b" \t")]) for value in protocols) < 2:
        raise ValueError("offer another subprotocol beside it, which the answer can name")
    return decoded
