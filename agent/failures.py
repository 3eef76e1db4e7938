"""What goes wrong on the way to the API server, as the RESET that a user sees the reason of; never with a secret in
it.
"""

from __future__ import annotations

import ssl

from tunnel.errors import ExchangeReset, Hop, Reason


def stopping() -> ExchangeReset:
    """The agent shuts down."""
    return ExchangeReset(Hop.AGENT, Reason.DRAINING, "the agent is stopping")


def unreachable(error: Exception) -> ExchangeReset:
    """What a failed dial means, in words that hold no secret."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ExchangeReset(Hop.APISERVER, Reason.TLS, f"the API server's certificate: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return ExchangeReset(
            Hop.APISERVER,
            Reason.TLS,
            f"TLS with the API server failed: {getattr(error, 'reason', None) or 'handshake'}",
        )
    if isinstance(error, TimeoutError):
        return ExchangeReset(Hop.APISERVER, Reason.TIMEOUT, "the API server did not answer the dial in time")
    if isinstance(error, OSError):
        return ExchangeReset(
            Hop.APISERVER, Reason.UNREACHABLE, f"cannot reach the API server: {error.strerror or 'connection lost'}"
        )
    return ExchangeReset(Hop.AGENT, Reason.INTERNAL, "the API server's CA or the agent's certificate cannot be used")
