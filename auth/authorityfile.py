"""An authority in its file (0600), with those that came before it and those that come next.

The first one in the file signs. What the others have signed, or will sign, counts as well: so an authority is replaced
in three steps (add the next, use it, remove the one before), with as much time between them as it takes everybody to
get certificates, or to hear whom to trust. A running server follows within a second.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from auth.pki import CertificateAuthority
from auth.statefile import StateFileError, read_private, write_private
from auth.watched import Watched

MOST: Final = 4
"""In one file: what agents take of announced authorities is bounded, too (docs/protocol.md, 3)."""
_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END [A-Z ]*PRIVATE KEY-----\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AuthorityFile:
    """`name` is a new authority's own. A change is one read and one write, by a person's command: the last one counts.

    All methods raise StateFileError: the file is open to others or damaged, or what is asked for cannot be done.
    """

    path: Path
    name: str

    def load(self, now: float) -> CertificateAuthority:
        """The one that signs, with the others; made at the first use. The file must not have expired."""
        return CertificateAuthority.load_or_create(self.path, self.name, now)

    def read(self) -> CertificateAuthority:
        """As `load`, of a file that is there."""
        return _first(self.all())

    def mark(self) -> tuple[int, int, int]:
        """What differs when the file has changed. Raises OSError."""
        seen = self.path.stat()
        return seen.st_mtime_ns, seen.st_size, seen.st_ino

    def all(self) -> tuple[CertificateAuthority, ...]:
        """All in it, each by itself; the first one signs."""
        pem = read_private(self.path)
        try:
            found = tuple(CertificateAuthority.read(block) for block in _BLOCK.findall(pem or b""))
        except ValueError as error:
            raise StateFileError(f"{self.path} {error}") from None
        if not found:
            raise StateFileError(f"there is no authority in {self.path}: name the state directory of a server")
        return found

    def add(self, now: float) -> CertificateAuthority:
        """Makes the next one, which counts and does not sign yet."""
        there = self.all()
        if len(there) >= MOST:
            raise StateFileError(f"{self.path} holds {MOST} authorities: remove one that is not needed any more")
        made = CertificateAuthority.create(self.name, now)
        self._write(*there, made)
        return made

    def use(self, id_: str, now: float) -> CertificateAuthority:
        """From now on this one signs; the one that did so counts as before."""
        there, chosen = self.all(), self._of(id_)
        if chosen.certificate.not_valid_after_utc.timestamp() <= now:
            raise StateFileError(f"authority {id_} has expired: add another one")
        self._write(chosen, *(one for one in there if id_of(one.certificate) != id_))
        return chosen

    def remove(self, id_: str) -> CertificateAuthority:
        """What this one has signed does not count any more."""
        there, gone = self.all(), self._of(id_)
        if id_of(there[0].certificate) == id_:
            raise StateFileError(f"authority {id_} signs: use another one first")
        self._write(*(one for one in there if id_of(one.certificate) != id_))
        return gone

    def _of(self, id_: str) -> CertificateAuthority:
        for one in self.all():
            if id_of(one.certificate) == id_:
                return one
        raise StateFileError(f"there is no authority {id_} in {self.path}")

    def _write(self, *authorities: CertificateAuthority) -> None:
        write_private(self.path, b"".join(one.to_pem() for one in authorities))


class LiveAuthority:
    """What a running server has of a file: another one is known when `poll` has seen that the file changed."""

    def __init__(self, file: AuthorityFile, now: float) -> None:
        """Makes it at the first use. :raises StateFileError: see `AuthorityFile.load`."""
        file.load(now)
        known = file.mark()
        self._current = file.read()
        self._watched = Watched(file.mark, file.read, self._take, known=known)

    def __call__(self) -> CertificateAuthority:
        """As it is now."""
        return self._current

    def poll(self) -> bool:
        """True where it has changed. :raises StateFileError, OSError: it cannot be read; what was known counts on."""
        return self._watched.poll()

    def _take(self, read: CertificateAuthority) -> None:
        self._current = read


Now = Callable[[], CertificateAuthority]
"""An authority as it is now."""


def id_of(certificate: x509.Certificate) -> str:
    """How people name an authority: the beginning of its certificate's SHA-256."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()[:12]


def _first(all_: tuple[CertificateAuthority, ...]) -> CertificateAuthority:
    first, *others = all_
    return CertificateAuthority(first.certificate, first.key, tuple(one.certificate for one in others))
