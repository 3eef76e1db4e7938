"""The message `drain`: its sender takes no new exchanges in this session (docs/protocol.md, 9)."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.messages import Message, encode_message, number, text

ALL = 2**63 - 1
"""As `last`: what is still under way to the drainer is taken, too. A second message says where that ended."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Exchanges after `last` were not processed, and may go elsewhere. `address` is a stub's word: attach there."""

    last: int
    address: str = ""

    def encode(self) -> bytes:
        """The message `drain`."""
        return encode_message("drain", last=self.last, address=self.address or None)

    @classmethod
    def parse(cls, message: Message) -> Drain:
        """From the message `drain`. Raises ProtocolError."""
        return cls(number(message, "last"), text(message, "address", default=""))
