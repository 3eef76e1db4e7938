"""Whom an agent trusts: configured authorities, and announced ones."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from agent.trust import MOST, TRUST, Trust, TrustError, authorities
from tests.agent.pki import Authority
from tests.support.agentauthority import Book
from tunnel.handshake import MAX_TRUST

OLD, NEW, OTHER = Authority("old"), Authority("new"), Authority("other")


def trusted(trust: Trust, authority: Authority) -> bool:
    """Whether a server with a certificate of this authority is."""
    wanted = ssl.PEM_cert_to_DER_cert(authority.pem)
    return wanted in trust.context(None).get_ca_certs(binary_form=True)


def test_an_announced_authority_is_trusted_beside_the_configured_one() -> None:
    trust = Trust(OLD.pem, None)
    assert not trusted(trust, NEW)
    assert trust.announce(OLD.pem + NEW.pem)
    assert trusted(trust, NEW)
    assert trusted(trust, OLD)


def test_what_is_announced_again_in_another_order_is_no_change() -> None:
    trust = Trust(OLD.pem, None)
    assert trust.announce(OLD.pem + NEW.pem)
    assert not trust.announce("words\n" + NEW.pem + OLD.pem + NEW.pem)


def test_an_old_one_goes_with_the_next_announcement_unless_it_is_configured() -> None:
    trust = Trust(OLD.pem, None)
    trust.announce(OLD.pem + OTHER.pem)
    trust.announce(NEW.pem)
    assert trusted(trust, NEW)
    assert not trusted(trust, OTHER)
    assert trusted(trust, OLD)


def test_nothing_announced_changes_nothing() -> None:
    trust = Trust(OLD.pem, None)
    trust.announce(NEW.pem)
    assert not trust.announce("")
    assert trusted(trust, NEW)


def test_where_the_system_decides_announced_ones_are_added() -> None:
    trust = Trust(None, None)
    before = len(trust.context(None).get_ca_certs())
    assert not trust.announce("")
    trust.announce(NEW.pem)
    assert trusted(trust, NEW)
    assert len(trust.context(None).get_ca_certs()) == before + 1


def test_what_was_announced_outlives_a_restart(tmp_path: Path) -> None:
    Trust(OLD.pem, tmp_path).announce(NEW.pem)
    again = Trust(OLD.pem, tmp_path)
    assert trusted(again, NEW)
    assert not again.announce(NEW.pem)


def test_under_another_ca_file_nothing_of_before_is_trusted(tmp_path: Path) -> None:
    """Somebody has decided anew whom to trust, perhaps because the old one is in bad hands."""
    Trust(OLD.pem, tmp_path).announce(NEW.pem)
    assert not trusted(Trust(OTHER.pem, tmp_path), NEW)
    assert not trusted(Trust(None, tmp_path), NEW)


LEAF = NEW.issue("leaf", "localhost").cert
BAD = {
    "no PEM": "words",
    "a leaf": LEAF,
    "a leaf among them": NEW.pem + LEAF,
    "an agent's certificate": Book().identity().chain,
    "cut": NEW.pem[:200],
    "damaged": NEW.pem.replace("M", "N"),
    "no ASCII": "ü" + NEW.pem,
    "too large": NEW.pem + "x" * MAX_TRUST,
}


@pytest.mark.parametrize("bundle", BAD.values(), ids=BAD)
def test_what_is_no_bundle_changes_nothing(tmp_path: Path, bundle: str) -> None:
    trust = Trust(OLD.pem, tmp_path)
    trust.announce(OTHER.pem)
    with pytest.raises(TrustError):
        trust.announce(bundle)
    assert trusted(trust, OTHER)
    assert trusted(Trust(OLD.pem, tmp_path), OTHER)


def test_there_are_so_many_and_no_more() -> None:
    many = [Authority(str(number)).pem for number in range(MOST + 1)]
    assert authorities("".join(many[:MOST])).count("BEGIN") == MOST
    with pytest.raises(TrustError, match="more than 16"):
        authorities("".join(many))


@pytest.mark.parametrize("content", [b"", b"half", b"\xff", b"# announced beside 0\n"], ids=repr)
def test_a_damaged_file_is_not_trusted_and_the_agent_starts(tmp_path: Path, content: bytes) -> None:
    Trust(OLD.pem, tmp_path).announce(NEW.pem)
    (tmp_path / TRUST).write_bytes(content)
    trust = Trust(OLD.pem, tmp_path)
    assert trusted(trust, OLD)
    assert trust.announced == ""


def test_a_file_that_others_may_have_written_is_not_trusted(tmp_path: Path) -> None:
    Trust(OLD.pem, tmp_path).announce(NEW.pem)
    (tmp_path / TRUST).chmod(0o666)
    assert not trusted(Trust(OLD.pem, tmp_path), NEW)


def test_what_cannot_be_kept_counts_until_a_restart(tmp_path: Path) -> None:
    trust = Trust(OLD.pem, tmp_path / "gone")
    with pytest.raises(OSError, match="No such"):
        trust.announce(NEW.pem)
    assert trusted(trust, NEW)


def test_a_context_with_an_identity_leaves_no_file_and_still_verifies() -> None:
    context = Trust(OLD.pem, None).context(Book().identity().pem())
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
