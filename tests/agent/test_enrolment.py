"""How a real agent gets its certificate from a real stub, over loopback, and what it does when that is no good."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.address import Address, Target
from agent.enrolment import NotEnrolled
from agent.identityfile import IDENTITY, AgentIdentity, IdentityFile
from agent.settings import JoinToken
from stub.authority import Enrolled, EnrolmentRequest
from tests.agent.pki import Authority
from tests.support.agentauthority import SECRET, Book
from tests.support.attached import UID, Answering, Real, Stub, ask, attached, eventually, get, nothing_left


def serials(stub: Stub) -> set[str]:
    """Of the certificates that the attached agents have proved."""
    return {session.standing.known.serial for session in stub.sessions.all()}


def kept(state: Path) -> AgentIdentity:
    """The identity on disk."""
    found = IdentityFile(state).load("alpha", UID)
    assert found is not None
    return found


async def test_an_agent_with_a_token_is_enrolled_and_attaches(stub: Stub, tmp_path: Path) -> None:
    async with attached(stub, state=tmp_path / "state"):
        assert len(stub.book.requests) == 1
        assert serials(stub) == {stub.book.certificate(kept(tmp_path / "state").der).serial}


async def test_after_a_restart_no_token_is_needed(stub: Stub, tmp_path: Path) -> None:
    async with attached(stub, state=tmp_path / "state"):
        before = serials(stub)
    await eventually(lambda: not stub.sessions.all())
    stub.book.keys.clear()
    async with attached(stub, state=tmp_path / "state", token=None):
        assert serials(stub) == before
    assert len(stub.book.requests) == 1


async def test_without_a_directory_each_start_asks(stub: Stub) -> None:
    for count in (1, 2):
        async with attached(stub, enrolled=False):
            assert len(stub.book.requests) == count
        await eventually(lambda: not stub.sessions.all())


async def test_who_has_to_wait_asks_with_the_same_key_also_after_a_restart(stub: Stub, tmp_path: Path) -> None:
    stub.book.waiting.add("alpha")
    for count in (1, 2):
        async with Real(stub, state=tmp_path / "state"):
            await eventually(lambda wanted=count: len(stub.book.requests) >= wanted)  # type: ignore[misc]
    assert not (tmp_path / "state" / IDENTITY).exists()
    stub.book.waiting.clear()
    async with attached(stub, state=tmp_path / "state"):
        assert len(stub.book.asked) == 1


async def test_who_has_to_wait_is_in_once_it_is_accepted_and_says_what_changes(stub: Stub, tmp_path: Path) -> None:
    stub.book.waiting.add("alpha")
    with capture_logs() as logs:
        async with Real(stub, state=tmp_path / "state") as real:
            await eventually(lambda: len(stub.book.requests) >= 2)
            stub.book.said = "waits for the other cluster to be gone"
            await eventually(lambda: len(stub.book.requests) >= 4, 5.0)
            stub.book.waiting.clear()
            await eventually(lambda: real.agent.attached, 5.0)
    told = [one["message"] for one in logs if one["event"] == "waiting to be accepted"]
    assert told == [
        "cluster 'alpha' waits for an administrator",
        "cluster 'alpha' waits for the other cluster to be gone",
    ]


async def test_it_asks_no_sooner_than_it_was_told(stub: Stub) -> None:
    stub.book.waiting.add("alpha")
    async with Real(stub, enrolled=False):
        await eventually(lambda: stub.book.requests)
        await asyncio.sleep(0.7)
        assert len(stub.book.requests) == 1
        await eventually(lambda: len(stub.book.requests) == 2)


async def test_a_wrong_token_gets_nothing_and_is_not_told_to_anybody(stub: Stub, tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with Real(stub, state=tmp_path / "state", token=JoinToken("join-a", b"wrong" * 8)):
            await eventually(lambda: [one for one in logs if one.get("reason") == "token"])
    assert not stub.book.requests
    assert "wrongwrong" not in str(logs)


async def test_without_a_certificate_and_a_token_it_says_what_to_do(stub: Stub) -> None:
    with capture_logs() as logs:
        async with Real(stub, enrolled=False, token=None) as real:
            await eventually(lambda: logs)
            with pytest.raises(NotEnrolled, match="make a token"):
                await real.enrolment.ready(Target(Address.parse(stub.name)))
    assert "kulvert token create" in logs[0]["error"]
    assert not stub.book.requests


async def test_an_agent_that_slept_through_its_certificates_end_is_enrolled_anew(stub: Stub, tmp_path: Path) -> None:
    state = tmp_path / "state"
    stub.book.lifetime = -10.0
    IdentityFile(state).save(stub.book.issued())
    stub.book.lifetime = 3600.0
    async with attached(stub, state=state):
        assert len(stub.book.requests) == 1
    assert kept(state).expires > stub.book.wall()


async def test_a_certificate_that_is_no_good_there_is_replaced_by_the_token(stub: Stub, tmp_path: Path) -> None:
    """The server was made anew, or the cluster removed and registered again."""
    state = tmp_path / "state"
    IdentityFile(state).save(Book().issued())
    async with attached(stub, state=state):
        assert len(stub.book.requests) == 1
    assert stub.book.certificate(kept(state).der)


async def test_a_certificate_that_is_no_good_for_a_while_is_tried_again(stub: Stub) -> None:
    """Without a token, or with one that is no good either."""
    for token in (None, JoinToken("join-x", SECRET)):
        identity = stub.book.identity("alpha", UID)
        stub.book.revoke(identity)
        with capture_logs() as logs:
            async with Real(stub, token=token) as real:
                await eventually(lambda seen=logs: sum(one.get("reason") == "certificate" for one in seen) >= 4)  # type: ignore[misc]
                stub.book.revoked.clear()
                await eventually(lambda there=real: there.agent.attached)  # type: ignore[misc]
        await eventually(lambda: not stub.sessions.all())


async def test_a_certificate_is_tried_again_while_a_new_one_waits_to_be_accepted(stub: Stub) -> None:
    stub.book.revoke(stub.book.identity("alpha", UID))
    stub.book.waiting.add("alpha")
    async with Real(stub) as real:
        await eventually(lambda: stub.book.requests)
        stub.book.revoked.clear()
        await eventually(lambda: real.agent.attached)


async def test_an_agent_that_is_revoked_is_sent_away_and_waits_to_be_accepted_again(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stub.standing.REVIEW", 0.05)
    async with attached(stub) as real:
        asked = ask(stub, head=get(long=True))
        stub.book.waiting.add("alpha")
        with capture_logs() as logs:
            stub.book.revoke(stub.book.identity("alpha", UID))
            await eventually(lambda: not stub.sessions.all())
            await eventually(lambda: stub.book.requests)
        assert asked.over
        assert [one["message"] for one in logs if one["event"] == "sent away by the server"] == [
            "the certificate has been revoked"
        ]
        assert not real.agent.attached


# --- TLS


async def test_a_server_that_asks_in_tls_sees_the_certificate(stub: Stub) -> None:
    async with attached(stub):
        (session,) = stub.sessions.all()
        (connection,) = [one for one in stub.setting.links if one._link is session.mux.shared]
        assert connection.transport is not None
        seen = connection.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert seen == stub.book.identity("alpha", UID).der


async def test_behind_a_load_balancer_that_ends_tls_an_agent_attaches(authority: Authority, tmp_path: Path) -> None:
    async with (
        nothing_left(),
        Stub(authority, tmp_path / "stub", asks=False) as stub,
        attached(stub, state=tmp_path / "s"),
    ):
        assert stub.sessions.of("alpha")


async def test_a_load_balancer_that_asks_for_certificates_of_its_own_kind_keeps_nobody_out(
    authority: Authority, tmp_path: Path
) -> None:
    async with nothing_left(), Stub(authority, tmp_path / "stub", asks=False) as stub:
        stub._tls.load_verify_locations(cadata=Authority("somebody else").pem)
        stub._tls.verify_mode = ssl.CERT_OPTIONAL
        async with attached(stub):
            pass


async def test_a_ca_that_was_announced_may_be_switched_to(authority: Authority, tmp_path: Path) -> None:
    fresh, state = Authority("next"), tmp_path / "state"
    async with nothing_left(), Stub(authority, tmp_path / "a") as before, attached(before, state=state) as real:
        before.book.trust = authority.pem + fresh.pem
        before.sessions.all()[0].standing.due = 0.0
        await eventually(lambda: fresh.pem.strip() in real.trust.announced)
        await before.door.stop()
        before.sessions.close("the server restarts")
        after = Stub(fresh, tmp_path / "b", book=before.book)
        after.port = before.port
        async with after:
            await eventually(lambda: after.sessions.all())
            before.book.trust = fresh.pem
            after.sessions.all()[0].standing.due = 0.0
            await eventually(lambda: real.trust.announced.strip() == fresh.pem.strip())


async def test_what_a_welcome_announces_is_trusted(authority: Authority, stub: Stub) -> None:
    stub.book.trust = authority.pem
    async with attached(stub) as real:
        assert real.trust.announced.strip() == authority.pem.strip()
    assert not stub.book.requests


async def test_an_announced_ca_outlives_the_agents_restart(authority: Authority, tmp_path: Path) -> None:
    fresh, state = Authority("next"), tmp_path / "state"
    async with nothing_left(), Stub(authority, tmp_path / "a") as before:
        before.book.trust = authority.pem + fresh.pem
        async with attached(before, state=state):
            pass
        async with Stub(fresh, tmp_path / "b", book=before.book) as after:
            after.ca = before.ca  # the agent's caFile is the old one
            async with attached(after, state=state):
                pass


async def test_a_ca_that_was_not_announced_is_refused(authority: Authority, tmp_path: Path) -> None:
    async with nothing_left(), Stub(authority, tmp_path / "a") as before, attached(before) as real:
        await before.door.stop()
        before.sessions.close("the server restarts")
        after = Stub(Authority("next"), tmp_path / "b", book=before.book)
        after.port = before.port
        async with after:
            with capture_logs() as logs:
                await eventually(lambda: "certificate was refused" in str(logs))
            assert not after.sessions.all()
            assert not real.agent.attached


async def test_a_bundle_that_is_none_is_told_and_changes_nothing(stub: Stub) -> None:
    stub.book.trust = "no PEM"
    with capture_logs() as logs:
        async with attached(stub) as real:
            assert real.trust.announced == ""
    assert [one for one in logs if "not trusted" in one["event"]]


# --- a stub that gives something else


class Wrong(Book):
    """Issues whatever a test wants."""

    def __init__(self, certificate: str) -> None:
        super().__init__()
        self.given = certificate

    def enrol(self, request: EnrolmentRequest) -> Enrolled:
        """See there."""
        super().enrol(request)
        return Enrolled(self.given, "")


GIVEN = {
    "for another key": Book().issued().chain,
    "for another cluster": Book().issued("beta", "uid-of-beta").chain,
    "no PEM": "certificate",
    "nothing": "",
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
async def test_a_certificate_that_was_not_asked_for_is_not_kept(
    authority: Authority, tmp_path: Path, given: str
) -> None:
    book, state = Wrong(given), tmp_path / "state"
    async with nothing_left(), Stub(authority, tmp_path / "stub", book=book) as stub, Real(stub, state=state) as real:
        await eventually(lambda: len(book.requests) >= 2)
        assert real.membership.identity is None
    assert not (state / IDENTITY).exists()
    assert len(book.asked) == 1


async def test_a_certificate_that_cannot_be_kept_is_not_used(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: IdentityFile, _identity: AgentIdentity) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IdentityFile, "save", full)
    with capture_logs() as logs:
        async with Real(stub, state=tmp_path / "state") as real:
            await eventually(lambda: "No space left" in str(logs))
            assert real.membership.identity is None
            monkeypatch.undo()
            await eventually(lambda: real.agent.attached)
    assert len(stub.book.asked) == 1


# --- cancellation


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.003, 0.005, 0.008, 0.012, 0.016, 0.02, 0.03, 0.05, 0.1])
async def test_an_agent_cancelled_while_it_is_enrolled_leaves_nothing(
    stub: Stub, tmp_path: Path, seconds: float
) -> None:
    async with nothing_left():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Real(stub, state=tmp_path / "state").agent.run(), seconds)
        await eventually(lambda: not stub.sessions.all() and not stub.setting.links)
    if (tmp_path / "state" / IDENTITY).exists():
        assert kept(tmp_path / "state")


async def test_an_agent_cancelled_while_it_waits_to_be_accepted_leaves_nothing(stub: Stub) -> None:
    stub.book.waiting.add("alpha")
    async with nothing_left():
        async with Real(stub, enrolled=False):
            await eventually(lambda: stub.book.requests)
        await eventually(lambda: not stub.setting.links)


async def test_a_drain_ends_an_agent_that_waits_to_be_accepted(stub: Stub) -> None:
    stub.book.waiting.add("alpha")
    async with Real(stub, enrolled=False) as real:
        await eventually(lambda: stub.book.requests)
        await real.agent.drain()
        assert real.task is not None
        await asyncio.wait_for(real.task, 2.0)


async def test_a_mute_stub_is_given_up(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.knock.GREETING", 0.2)
    monkeypatch.setattr("stub.attaching.Attaching.on_open", lambda _self, _connection: None)
    async with nothing_left():
        real = Real(stub, enrolled=False)
        with pytest.raises(TimeoutError):
            await real.enrolment.ready(Target(Address.parse(stub.name)))
        await eventually(lambda: not stub.setting.links)


async def test_streams_go_on_while_another_agent_is_enrolled(stub: Stub) -> None:
    handler = Answering(body=None)
    async with attached(stub, handler):
        asked = ask(stub)
        await eventually(lambda: handler.begun)
        async with attached(stub, enrolled=False):
            assert len(stub.sessions.all()) == 2
        handler.answer(handler.begun[0][0], b"late")
        await eventually(lambda: asked.over)
        assert (asked.reset, asked.body) == (None, b"late")
