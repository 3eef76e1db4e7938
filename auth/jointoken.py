"""Join tokens `kvt_<id>.<secret>`: with one, an agent may ask to serve a cluster.

The agent never sends the secret: it proves that it knows it, by an HMAC over the stub's challenge. The
store keeps a key derived from the secret (HKDF-SHA256, RFC 5869). That key is as good as the token for a
proof, so the store is as secret as tokens are; but a token cannot be read back from it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tunnel.proof import join_key, parse_join_token


class JoinTokenInvalid(Exception):
    """A text is no join token. The text itself is never repeated."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token in the hands of who made it, or of the agent that holds it."""

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def create(cls, randomness: Callable[[int], bytes]) -> JoinToken:
        """A new token of 256 secret bits; `randomness` is `os.urandom`, but for tests."""
        return cls(base64.b32encode(randomness(10)).decode().lower(), randomness(32))

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Reads what `text()` wrote. :raises JoinTokenInvalid: for anything else."""
        try:
            return cls(*parse_join_token(text))
        except ValueError as error:
            raise JoinTokenInvalid(str(error)) from None

    def text(self) -> str:
        """The token as it is handed over. Secret: show it once, log it never."""
        return f"kvt_{self.id}.{base64.urlsafe_b64encode(self.secret).rstrip(b'=').decode()}"

    def key(self) -> bytes:
        """The HMAC key that both sides derive; the id is its salt."""
        return join_key(self.id, self.secret)

    def stored(self, cluster: str, expires: float, **terms: Any) -> StoredJoinToken:
        """What a store keeps; `terms` are further fields of `StoredJoinToken`."""
        return StoredJoinToken(self.id, self.key(), cluster, expires, **terms)


@dataclass(frozen=True, slots=True)
class StoredJoinToken:
    """What is kept of a token: for which cluster it speaks (empty: for any that has its labels), from when until when,
    for how many agents (0: any number), whether it needs no administrator, and how to check a proof.
    """

    id: str
    key: bytes = field(repr=False)
    cluster: str
    expires: float
    created: float = 0.0
    uses: int = 0
    accept: bool = False
    labels: tuple[tuple[str, str], ...] = ()

    def fits(self, cluster: str, labels: Iterable[tuple[str, str]] | None) -> bool:
        """Whether an agent may ask with it to serve this cluster; `labels` are None where nobody knows the name."""
        if self.cluster:
            return self.cluster == cluster
        return bool(self.labels) and (labels is None or set(self.labels) <= set(labels))
