"""What a server knows of its users, composed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from auth.authenticator import AuthenticationUnavailable
from gateway.config import ServerConfig
from gateway.hub.client import Hub
from gateway.hub.settings import HubSettings
from gateway.issuing.store import TOKEN, IssuedCredential
from gateway.membership.clusterkeys import ClusterKeys
from gateway.membership.registry import SqliteRegistry
from gateway.state import State
from gateway.wiring.authentication import Authentication
from gateway.wiring.tasks import Tasks
from tests.gateway.answers import read
from tests.gateway.gate import Gate, gate, settle
from tests.gateway.test_pipeline import get
from tests.support.oidc_issuer import jwk, key_set
from tests.support.token_forge import Forge


async def test_credentials_that_count_no_more_are_forgotten_in_time(tmp_path: Path) -> None:
    state, now = State(tmp_path), time.time()
    registry = SqliteRegistry(tmp_path / "kulvert.db")
    keys = ClusterKeys(registry.database)
    made = Authentication(ServerConfig(state_dir=tmp_path), state, registry.database, keys, None, now)
    old = IssuedCredential("JTI=a", TOKEN, "a", "ada", now - 9_000, now - 8_000, now - 7_000, "")
    made.revocations.record(old, recorded_parent=False, now=now)
    await made.part.looks["credentials"]()
    assert made.revocations.issued() == ()
    registry.close()


# --- the hub's service accounts

ISSUER = "https://hub.test"
KEY, FOREIGN = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
USER = {"username": "deployer", "groups": ["devs"]}  # a service account would need a grant that names it
PATH = b"/clusters/a/api"


def forge(key: ec.EllipticCurvePrivateKey) -> Forge:
    return Forge(key, "k0", {"iss": ISSUER, "aud": ["kulvert"]}, int(time.time()))


class SlowHub(Hub):
    """It answers reviews when the test lets it, and gives its keys, if it is not away."""

    def __init__(self) -> None:
        super().__init__(HubSettings(in_cluster=True, token_review=True))
        self.answers = asyncio.Event()
        self.asked: list[str] = []
        self.keys_away = False

    async def issuers(self) -> frozenset[str]:
        return frozenset({ISSUER})

    async def key_set(self) -> bytes:
        if self.keys_away:
            raise AuthenticationUnavailable("the hub answers 403 to GET /openid/v1/jwks")
        return key_set(jwk(KEY, kid="k0", use="sig", alg="ES256"))

    async def review_token(self, token: str) -> Mapping[str, Any]:
        self.asked.append(token)
        await self.answers.wait()
        return {"authenticated": True, "user": USER, "audiences": ["kulvert"]}


@asynccontextmanager
async def reviewing(directory: Path, hub: Hub) -> AsyncIterator[tuple[Authentication, Gate]]:
    """A gateway in whose chain the composed authentication comes first."""
    registry, now = SqliteRegistry(directory / "kulvert.db"), time.time()
    config = replace(ServerConfig(state_dir=directory), hub=HubSettings(in_cluster=True, token_review=True))
    keys = ClusterKeys(registry.database)
    made = Authentication(config, State(directory), registry.database, keys, hub, now)
    async with Tasks() as tasks, gate(first=[made.chain]) as opened:
        await made.start(tasks)
        await settle()
        opened.time[0] = time.time()
        yield made, opened
    registry.close()


async def test_strangers_with_forged_tokens_of_the_hub_keep_no_user_out_while_it_is_slow(tmp_path: Path) -> None:
    hub = SlowHub()
    async with reviewing(tmp_path, hub) as (made, g):
        assert made.part.warnings["hub-keys"]() is None
        assert "keys of the hub" in {task.get_name() for task in asyncio.all_tasks()}
        strangers = [g.connect() for _ in range(1_001)]
        for number, stranger in enumerate(strangers):
            kid = f"k{number % 2}"  # the hub's own, and one that it does not have
            stranger.send(get(PATH, forge(FOREIGN).headed(kid=kid).encode()))
        refused = {read(stranger.take())[0].status for stranger in strangers}
        user, good = g.connect(), forge(KEY).good()
        user.send(get(PATH, good.encode()))
        await settle()
        asked, waits = list(hub.asked), user.take()
        hub.answers.set()
        await settle()
        opened = len(g.clusters.opened)
        for wire in (*strangers, user):
            wire.lose()
    assert refused == {401}
    assert (asked, waits, opened) == ([good], b"", 1)


async def test_without_the_hubs_keys_its_service_accounts_are_told_to_try_again(tmp_path: Path) -> None:
    hub = SlowHub()
    hub.keys_away = True
    async with reviewing(tmp_path, hub) as (made, g):
        assert "403" in str(made.part.warnings["hub-keys"]())
        wire = g.connect()
        wire.send(get(PATH, forge(KEY).good().encode()))
        await settle()
        answer = read(wire.take())[0]
        wire.lose()
    assert (answer.status, hub.asked) == (503, [])


async def test_a_hub_that_is_there_for_something_else_is_not_asked_for_keys(tmp_path: Path) -> None:
    registry, now = SqliteRegistry(tmp_path / "kulvert.db"), time.time()
    config = replace(ServerConfig(state_dir=tmp_path), hub=HubSettings(in_cluster=True, grants=True))
    made = Authentication(config, State(tmp_path), registry.database, ClusterKeys(registry.database), SlowHub(), now)
    async with Tasks() as tasks:
        await made.start(tasks)
        assert "keys of the hub" not in {task.get_name() for task in asyncio.all_tasks()}
    assert "hub-keys" not in made.part.warnings
    registry.close()
