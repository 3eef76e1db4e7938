"""What of a request's head is a credential."""

from __future__ import annotations

import base64
import binascii

from gateway import status
from gateway.failures import Refused
from gateway.upstreamhead import bearer_of
from tunnel.head import RequestHead


def authorization_of(head: RequestHead) -> bytes | None:
    """The Authorization header, or a browser's way around it: a bearer token among the WebSocket subprotocols.

    Raises Refused (401) where such a token is malformed, or there are two.
    """
    value = head.get(b"authorization")
    if value is not None or head.upgrade != b"websocket":
        return value
    try:
        token = bearer_of(head.get_all(b"sec-websocket-protocol"))
        if token is None:
            return None
        return b"Bearer " + base64.b64decode(token + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise Refused(status.UNAUTHENTICATED, "the bearer token in Sec-WebSocket-Protocol is malformed") from None
