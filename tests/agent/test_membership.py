"""Which TLS an agent dials with: it follows from who it is, and whom it trusts."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.identityfile import AgentIdentity, IdentityError, IdentityFile, new_key
from agent.membership import Membership
from agent.trust import Trust
from tests.agent.pki import Authority
from tests.support.agentauthority import Book
from tests.support.attached import UID, Kept
from tunnel.enrolment import Issued

START = 1_800_000_000.0
OLD, NEW = Authority("old"), Authority("new")


class Shown(Trust):
    """Tells which identity each context offers."""

    def __init__(self) -> None:
        super().__init__(OLD.pem, None)
        self.shown: list[bytes | None] = []

    def context(self, identity: bytes | None) -> ssl.SSLContext:
        self.shown.append(identity)
        return super().context(identity)


class Bed:
    def __init__(self, file: IdentityFile | None = None) -> None:
        self.now = START
        self.book = Book(lifetime=3600.0, wall=lambda: self.now)
        self.trust = Shown()
        self.used: list[ssl.SSLContext] = []
        kept = file or Kept(self.book.identity("alpha", UID))
        self.membership = Membership("alpha", UID, kept, self.trust, self.used.append, lambda: self.now)

    @property
    def pem(self) -> bytes:
        return self.book.identity("alpha", UID).pem()


def test_it_offers_its_identity_and_makes_no_context_without_a_change() -> None:
    bed = Bed()
    bed.membership.refresh()
    assert bed.trust.shown == [bed.pem]
    assert len(bed.used) == 1


def test_an_identity_that_has_expired_is_none_and_is_not_offered() -> None:
    """A server that asks in TLS would refuse the connection, on which a new one is to be asked for."""
    bed = Bed()
    bed.now += 3600
    assert bed.membership.identity is None
    bed.membership.refresh()
    assert bed.trust.shown == [bed.pem, None]


def test_after_a_failure_it_is_tried_without_and_with_in_turn() -> None:
    bed = Bed()
    bed.membership.failed()
    bed.membership.failed()
    assert bed.trust.shown == [bed.pem, None, bed.pem]


def test_one_that_is_doubted_is_not_offered() -> None:
    bed = Bed()
    bed.membership.doubted = True
    bed.membership.refresh()
    assert bed.trust.shown == [bed.pem, None]


async def test_a_granted_certificate_is_kept_offered_and_no_longer_doubted(tmp_path: Path) -> None:
    bed = Bed(IdentityFile(tmp_path))
    assert bed.membership.identity is None
    bed.membership.doubted = True
    identity = bed.book.issued("alpha", UID)
    taken = await bed.membership.take(identity.key, Issued(identity.chain, NEW.pem))
    assert bed.membership.identity is taken
    assert not bed.membership.doubted
    assert bed.trust.shown == [None, identity.pem(), identity.pem()]
    assert bed.trust.announced.strip() == NEW.pem.strip()
    kept = IdentityFile(tmp_path).load("alpha", UID)
    assert kept is not None
    assert kept.der == taken.der


async def test_a_certificate_for_somebody_else_is_not_taken(tmp_path: Path) -> None:
    bed = Bed(IdentityFile(tmp_path))
    identity, beta = bed.book.issued("alpha", UID), bed.book.issued("beta", UID)
    for key, chain in ((new_key(), identity.chain), (beta.key, beta.chain)):
        with pytest.raises(IdentityError):
            await bed.membership.take(key, Issued(chain))
    assert bed.membership.identity is None
    assert not list(tmp_path.iterdir())


def test_trust_that_cannot_be_kept_is_told_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed()

    def full(_bundle: str) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bed.trust, "announce", full)
    with capture_logs() as logs:
        bed.membership.announced(NEW.pem)
    assert "No space left" in str(logs)
    assert len(bed.used) == 2


def test_an_identity_is_in_no_representation() -> None:
    identity: AgentIdentity = Bed().book.identity()
    assert "PRIVATE" not in repr(identity)
