"""The agent's installation by a kubeconfig in a Secret of the hub, and the wait until it is available."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

from auth.jointoken import JoinToken
from gateway.hub.settings import AutoJoinSettings
from gateway.joining.client import ClusterClient
from gateway.joining.install import Api, JoinFailed, apply, is_constrained, uid_of
from gateway.joining.kubeconfig import Target, read
from gateway.joining.manifest import IMAGE, Installation
from gateway.membership.changes import accept
from gateway.membership.conditions import AVAILABLE, TRUE
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores

KEY: Final = "kubeconfig"
TOKEN: Final = 86_400.0
"""Seconds for which agents may enrol with the token that is applied; afterwards they have their certificate."""
LOOK: Final = 1.0

Connect: TypeAlias = Callable[[Target], AbstractAsyncContextManager[Api]]


class Installer:
    """`trusted` is the PEM that agents are to trust, `version` the image's tag."""

    def __init__(
        self,
        settings: AutoJoinSettings,
        stores: Stores,
        trusted: Callable[[], str],
        wall: Callable[[], float],
        version: str,
        connect: Connect = ClusterClient,
        look: float = LOOK,
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._trusted = trusted
        self._wall = wall
        self._image = settings.image or f"{IMAGE}:{version}"
        self._connect = connect
        self._look = look

    def has_joined(self, name: str) -> bool:
        """Whether there is a cluster of this name."""
        cluster = self._stores.registry.get(name)
        return cluster is not None and cluster.uid is not None

    async def install(self, name: str, target: Target) -> str:
        """Gives the cluster's id. Raises JoinFailed, RegistryError."""
        async with self._connect(target) as api:
            uid = await uid_of(api)
            self._know(name, uid)
            token = self._token(name)
            try:
                made = self._installation(name, token, await is_constrained(api))
                await apply(api, made.objects(), dry_run=True)
                _, has_name = accept(self._stores, name, uid, self._wall(), None)
                if not has_name:
                    raise JoinFailed(f"the name {name!r} is another cluster's: `kulvert cluster switch` gives it away")
                await apply(api, made.objects())
            except BaseException:
                self._stores.tokens.remove(token.id)
                raise
        return uid

    def _know(self, name: str, uid: str) -> None:
        there = self._stores.registry.get(name)
        if there is None:
            self._stores.registry.add(Cluster(name, None, self._wall()))
        elif there.phase:
            raise JoinFailed(f"cluster {name!r} is being removed: it joins again when its name is free")
        elif there.uid not in (None, uid):
            raise JoinFailed(f"the name {name!r} is another cluster's ({there.uid}); the kubeconfig leads to {uid}")

    def _token(self, name: str) -> JoinToken:
        now, made = self._wall(), JoinToken.create(os.urandom)
        self._stores.tokens.add(made.stored(name, now + TOKEN, created=now))
        return made

    def _installation(self, name: str, token: JoinToken, constrained: bool) -> Installation:
        servers = self._settings.agents_address
        return Installation(name, servers, token.text(), self._trusted(), self._image, constrained=constrained)

    async def available(self, name: str, uid: str) -> None:
        """:raises JoinFailed: it is not, in time."""
        deadline = self._wall() + self._settings.timeout
        while True:
            cluster = self._stores.registry.get(name)
            conditions = {one.type: one for one in cluster.conditions} if cluster is not None else {}
            found = conditions.get(AVAILABLE)
            if cluster is not None and cluster.uid == uid and found is not None and found.status == TRUE:
                return
            if self._wall() >= deadline:
                why = found.message if found is not None else "nothing is known of it"
                raise JoinFailed(f"the agent is installed, but not available ({why}): see to its pods in the cluster")
            await asyncio.sleep(self._look)


def target_in(found: Mapping[str, Any]) -> Target:
    """What the kubeconfig in a Secret leads to. :raises JoinFailed: there is none, or one that is not to be used."""
    data = found.get("data")
    text = data.get(KEY) if isinstance(data, dict) else None
    if not isinstance(text, str):
        raise JoinFailed(f"the Secret has no key {KEY}")
    try:
        return read(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise JoinFailed(f"the Secret's {KEY} is not base64") from None
