"""Enrolment as the stub asks for it, from the token to the certificate, and what ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from auth.agentpki import AUTHORITY
from auth.jointoken import StoredJoinToken
from auth.pki import CertificateAuthority
from gateway.membership import changes as membership
from gateway.membership.agentauthority import HEARD, RegistryAuthority
from gateway.membership.enrolments import EnrolmentSettings, State
from gateway.membership.registry import Cluster, RegistryError
from gateway.membership.stores import Stores
from stub.authority import AgentCertificate, EnrolmentRequest
from tests.auth.test_agentpki import csr, der
from tunnel.enrolment import cluster_uri
from tunnel.handshake import Refused

NOW = 1_800_000_000.0
TOKEN = StoredJoinToken("tok", b"k", "edge", NOW + 3600, created=NOW)
FLEET = StoredJoinToken("fleet", b"k", "", NOW + 3600, created=NOW, labels=(("env", "edge"),))


Known: TypeAlias = AgentCertificate
Key: TypeAlias = ec.EllipticCurvePrivateKey


class World:
    """An authority on stores of its own, and a clock that a test sets."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.stores = Stores.open(path, patience=0.01)
        self.now = NOW
        self.seen: dict[tuple[str, str], float] = {}
        self.agents = CertificateAuthority.create(AUTHORITY, NOW)
        self.authority = RegistryAuthority(
            self.stores,
            lambda: self.agents,
            EnrolmentSettings(**settings),
            self,
            lambda: "trust",
            lambda: self.now,
        )

    def last_connected(self, cluster: str, uid: str) -> float:
        return self.seen.get((cluster, uid), self.now)

    def ask(
        self,
        uid: str = "u1",
        name: str = "edge",
        token_id: str = TOKEN.id,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> AgentCertificate:
        """Enrols, and shows the certificate."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        signing = csr(key, cluster_uri(name, uid))
        request = EnrolmentRequest(token_id, name, uid, "agent-1", "i", "192.0.2.1", signing)
        granted = self.authority.enrol(request)
        assert granted.trust == "trust"
        return self.authority.certificate(der(granted.certificate))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def one(**settings: Any) -> World:
        made.append(World(tmp_path / f"{len(made)}.db", **settings))
        return made[-1]

    yield one
    for world in made:
        world.stores.close()


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    """A cluster that is added, and a token that waits for an administrator."""
    found = make()
    found.stores.registry.add(Cluster("edge", None, NOW))
    found.stores.tokens.add(TOKEN)
    return found


def test_a_request_waits_and_is_answered_once_it_is_accepted(world: World) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for _ in range(2):
        with pytest.raises(Refused, match="kulvert cluster accept edge") as refused:
            world.ask(key=key)
        assert (refused.value.reason, bool(refused.value.retry_after)) == ("pending", True)
    assert [one.state for one in world.stores.enrolments.list()] == [State.PENDING]
    membership.accept(world.stores, "edge", None, NOW)
    known = world.ask(key=key)
    assert (known.cluster, known.cluster_id) == ("edge", "u1")
    assert world.authority.admit(known) == ""
    assert world.stores.enrolments.list() == ()


def test_an_acceptance_by_another_process_counts_at_once(world: World) -> None:
    with pytest.raises(Refused):
        world.ask()
    command = Stores.open(world.path)
    membership.accept(command, "edge", "u1", NOW)
    command.close()
    assert world.ask().cluster_id == "u1"


def test_a_token_made_by_another_process_counts_at_once(world: World) -> None:
    command = Stores.open(world.path)
    command.tokens.add(replace(TOKEN, id="new"))
    command.close()
    found = world.authority.join_key("new")
    assert found is not None
    assert (found.cluster, found.expires) == ("edge", TOKEN.expires)
    assert world.authority.join_key("unknown") is None


def test_where_the_stores_cannot_be_used_the_agent_is_told_to_try_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RegistryError("the registry's file cannot be used just now: try again")

    monkeypatch.setattr(world.stores.enrolments, "told", broken)
    with pytest.raises(Refused, match="try again") as refused:
        world.ask()
    assert refused.value.retry_after
    monkeypatch.setattr(world.stores.registry, "poll", broken)
    with pytest.raises(Refused, match="try again"):
        world.authority.join_key("nil")


def test_a_certificate_attaches_as_its_cluster_and_nothing_else(world: World) -> None:
    world.stores.registry.add(Cluster("hub", "u9", NOW))
    world.stores.tokens.add(replace(TOKEN, id="hub", cluster="hub"))
    membership.accept(world.stores, "edge", "u1", NOW)
    known = world.ask()
    for forged in (replace(known, cluster="hub"), replace(known, cluster_id="u9")):
        assert world.authority.admit(forged)
    with pytest.raises(Refused, match="not for cluster"):
        world.ask(name="hub", uid="u9")
    with pytest.raises(Refused, match="another cluster"):
        world.authority.renew(known, csr(ec.generate_private_key(ec.SECP256R1()), cluster_uri("hub", "u9")))


def test_renewal_gives_a_new_serial_and_the_old_one_counts_on(world: World) -> None:
    membership.accept(world.stores, "edge", "u1", NOW)
    known = world.ask()
    world.now += 5 * 86_400
    key = ec.generate_private_key(ec.SECP256R1())
    granted = world.authority.renew(known, csr(key, cluster_uri("edge", "u1")))
    renewed = world.authority.certificate(der(granted.certificate))
    assert renewed.serial != known.serial
    assert renewed.expires == world.now + 7 * 86_400
    assert [world.authority.admit(one) for one in (known, renewed)] == ["", ""]
    assert {one.agent for one in world.stores.certificates.of("edge")} == {"agent-1"}
    world.now += 3 * 86_400
    assert "expired" in world.authority.admit(known)
    with pytest.raises(Refused, match="expired") as refused:
        world.authority.renew(known, csr(key, cluster_uri("edge", "u1")))
    assert refused.value.reason == "certificate"


def test_a_revoked_certificate_and_its_key_do_not_come_in_again(world: World) -> None:
    membership.accept(world.stores, "edge", "u1", NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    known = world.ask(key=key)
    membership.revoke(world.stores, "edge", known.serial, NOW)
    assert "revoked" in world.authority.admit(known)
    with pytest.raises(Refused, match="denied"):
        world.ask(key=key)
    with pytest.raises(RegistryError, match="no certificate"):
        membership.revoke(world.stores, "hub", known.serial, NOW)


def test_what_was_renewed_from_a_revoked_certificate_goes_with_it(world: World) -> None:
    """Whoever stole a key may have renewed its certificate for keys of his own; others of the cluster's stay."""
    membership.accept(world.stores, "edge", "u1", NOW)
    stolen, other, later = world.ask(), world.ask(), []
    known = stolen
    for _ in range(3):
        world.now += 60
        key = ec.generate_private_key(ec.SECP256R1())
        granted = world.authority.renew(known, csr(key, cluster_uri("edge", "u1")))
        known = world.authority.certificate(der(granted.certificate))
        later.append(known)
    command = Stores.open(world.path)
    membership.revoke(command, "edge", later[0].serial, world.now)
    command.close()
    world.stores.registry.poll()
    assert [bool(world.authority.admit(one)) for one in (stolen, other, *later)] == [False, False, True, True, True]


def test_a_certificate_that_the_store_does_not_know_is_no_good_however_well_it_is_signed(world: World) -> None:
    membership.accept(world.stores, "edge", "u1", NOW)
    signing = csr(ec.generate_private_key(ec.SECP256R1()), cluster_uri("edge", "u1"))
    granted = world.authority.enrol(EnrolmentRequest("tok", "edge", "u1", "a", "i", "", signing))
    world.stores.certificates.remove_of("edge")
    with pytest.raises(Refused, match="not heard") as refused:
        world.authority.certificate(der(granted.certificate))
    assert refused.value.reason == "standby", "another replica may have just issued it: no reason to ask for a new one"
    world.now += HEARD
    with pytest.raises(Refused, match="revoked") as refused:
        world.authority.certificate(der(granted.certificate))
    assert refused.value.reason == "certificate"


def test_a_token_of_one_use_brings_one_agent(world: World) -> None:
    world.stores.tokens.add(replace(TOKEN, id="one", uses=1))
    membership.accept(world.stores, "edge", "u1", NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    world.ask(token_id="one", key=key)
    world.ask(token_id="one", key=key)
    with pytest.raises(Refused, match="used up"):
        world.ask(token_id="one")
    world.ask()


def test_a_flood_of_requests_is_told_to_come_later_and_fills_nothing(world: World) -> None:
    world.stores.tokens.add(replace(FLEET, accept=False))
    key = ec.generate_private_key(ec.SECP256R1())
    for number in range(64):
        with pytest.raises(Refused):
            world.ask(name=f"c{number}", token_id="fleet", key=key)
    with pytest.raises(Refused, match="too many") as refused:
        world.ask(name="c64", token_id="fleet", key=key)
    assert (refused.value.reason, len(world.stores.enrolments.list())) == ("overloaded", 64)
    assert world.stores.registry.get("c1") is None


# --- a second cluster


def joined(world: World) -> AgentCertificate:
    membership.accept(world.stores, "edge", "u1", NOW)
    return world.ask()


def test_a_second_cluster_takes_the_name_over_when_the_first_is_gone(world: World) -> None:
    first = joined(world)
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(Refused, match="nobody has accepted"):
        world.ask("u2", key=key)
    membership.accept(world.stores, "edge", "u2", NOW)
    with pytest.raises(Refused, match="is another cluster's"):
        world.ask("u2", key=key)
    assert [one.state for one in world.stores.enrolments.list()] == [State.WAITING]
    world.seen["edge", "u1"] = world.now = NOW + 100
    world.now += 59
    with pytest.raises(Refused):
        world.ask("u2", key=key)
    assert world.authority.admit(first) == ""
    world.now += 2
    assert world.ask("u2", key=key).cluster_id == "u2"
    assert world.authority.admit(first)
    with pytest.raises(Refused):
        world.ask("u1")


def test_a_deliberate_switch_waits_for_nobody(world: World) -> None:
    first = joined(world)
    assert membership.switch(world.stores, "edge", "u2", NOW).uid == "u2"
    assert "revoked" in world.authority.admit(first)
    assert world.ask("u2").cluster_id == "u2"


def test_in_a_cluster_that_is_being_removed_agents_stay_and_none_comes(world: World) -> None:
    first = joined(world)
    membership.remove(world.stores, "edge", "ada", False, NOW)
    assert world.authority.admit(first) == ""
    with pytest.raises(Refused, match="being removed"):
        world.ask()


def test_names_of_the_settings_need_no_administrator(make: Callable[..., World]) -> None:
    world = make(auto_accept=("edge-*",))
    world.stores.tokens.add(FLEET)
    assert world.ask(name="edge-7", token_id="fleet").cluster == "edge-7"
    found = world.stores.registry.get("edge-7")
    assert found is not None
    assert found.labels == FLEET.labels
    with pytest.raises(Refused, match="accept"):
        world.ask(name="prod", token_id="fleet")
    with pytest.raises(Refused, match="accept"):  # another key of the accepted cluster, by a token of many hands
        world.ask(name="edge-7", token_id="fleet")


def test_agents_of_a_cluster_that_the_hub_denies_are_sent_away_until_it_lets_them_in_again(world: World) -> None:
    membership.accept(world.stores, "edge", "u1", NOW)
    known = world.ask()
    world.stores.registry.deny("edge", True)
    assert "does not accept" in world.authority.admit(known)
    with pytest.raises(Refused, match="does not accept"):
        world.ask()
    world.stores.registry.terminate("edge")
    assert world.authority.admit(known) == "", "a cluster is cleaned up through its agent"


def test_by_its_certificate_an_agent_is_back_once_its_cluster_is_accepted_again(world: World) -> None:
    membership.accept(world.stores, "edge", "u1", NOW)
    known = world.ask()
    world.stores.registry.deny("edge", True)
    membership.accept(world.stores, "edge", None, NOW)
    assert world.authority.admit(known) == ""


def test_certificates_of_the_authority_before_count_until_it_is_taken_away(world: World) -> None:
    world.stores.tokens.add(replace(TOKEN, id="accepting", accept=True))
    old, key = world.agents, ec.generate_private_key(ec.SECP256R1())
    token = world.stores.tokens.get("accepting")
    assert token is not None
    signing = csr(key, cluster_uri("edge", "u1"))
    request = EnrolmentRequest(token.id, "edge", "u1", "agent-1", "i", "192.0.2.1", signing)
    first = der(world.authority.enrol(request).certificate)
    new = CertificateAuthority.create(AUTHORITY, NOW)
    world.agents = CertificateAuthority(new.certificate, new.key, (old.certificate,))
    known = world.authority.certificate(first)
    second = der(world.authority.renew(known, csr(key, cluster_uri("edge", "u1"))).certificate)
    x509.load_der_x509_certificate(second).verify_directly_issued_by(new.certificate)
    assert world.authority.certificate(second).cluster == "edge"
    world.agents = new
    with pytest.raises(Refused, match="not signed by this platform's agents' authority"):
        world.authority.certificate(first)
    assert world.authority.certificate(second).cluster == "edge"
