"""What clusters' agents say of them by `cluster.heartbeat`, checked, and kept in memory while they are attached.

A session is authenticated for one cluster, and says something of that one alone: nothing in the call names a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.membership.inventory import BadInventory, Inventory
from stub.session import AgentInfo
from tunnel.calls import CallFailed, Method, Params

HEARTBEAT: Final = "cluster.heartbeat"
MAX_MESSAGE: Final = 512
MAX_NAME: Final = 253
MAX_ROUND_TRIP: Final = 3_600_000


class BadHeartbeat(ValueError):
    """One that cannot be taken; the text says why."""


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat of one agent's. `ready` and `message` are of the API server as it sees it, the round trip too."""

    ready: bool
    message: str
    round_trip_ms: int
    agent: str
    software: str
    carriage: str
    inventory: Inventory

    @classmethod
    def of(cls, params: Params) -> Beat:
        """:raises BadHeartbeat: something is missing, too long or malformed."""
        status = _object(params, "status")
        health, agent = _object(status, "apiServer"), _object(status, "agent")
        ready, took = health.get("ready"), health.get("roundTripMs")
        if not isinstance(ready, bool):
            raise BadHeartbeat("apiServer.ready must be true or false")
        if not isinstance(took, int) or isinstance(took, bool) or not 0 <= took <= MAX_ROUND_TRIP:
            raise BadHeartbeat("apiServer.roundTripMs must be milliseconds")
        name, software, carriage = (_text(agent, key, MAX_NAME) for key in ("name", "software", "carriage"))
        try:
            inventory = Inventory.of(status)
        except BadInventory as bad:
            raise BadHeartbeat(str(bad)) from None
        return cls(ready, _text(health, "message", MAX_MESSAGE), took, name, software, carriage, inventory)

    def shown(self) -> dict[str, object]:
        """An agent, as objects show it."""
        health = {"ready": self.ready, "message": self.message, "roundTripMs": self.round_trip_ms}
        return {"name": self.agent, "software": self.software, "carriage": self.carriage, "apiServer": health}


@dataclass(frozen=True, slots=True)
class Pulse:
    """What all agents of a cluster say together. `heard` is when the last of them said it, epoch seconds."""

    agents: int
    ready: int
    message: str
    inventory: Inventory
    heard: float

    @classmethod
    def of(cls, beats: Iterable[Beat], heard: float) -> Pulse:
        """The healthy ones count first: what they see is what users get."""
        found = sorted(beats, key=lambda one: (not one.ready, one.inventory.nodes is None))
        message = next((one.message for one in reversed(found) if one.message), "")
        inventory = found[0].inventory if found else Inventory()
        return cls(len(found), sum(one.ready for one in found), message, inventory, heard)


@dataclass(frozen=True, slots=True)
class Renewal:
    """A heartbeat's Lease, as somebody sees it who does not have the agents. `duration` is in seconds; `seen` is when
    its record changed last by the observer's own clock, `fresh` whether he has seen it change at all.
    """

    pulse: Pulse
    duration: float
    seen: float
    fresh: bool = True


class Heartbeats:
    """By cluster and agent. `subscribe` hears the name of each cluster of which something was heard, or whose last
    agent went.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._beats: dict[str, dict[str, Beat]] = {}
        self._heard: dict[str, float] = {}
        self._told: list[Callable[[str], None]] = []

    def subscribe(self, told: Callable[[str], None]) -> None:
        """`told` is called at once, and is quick."""
        self._told.append(told)

    def methods(self, agent: AgentInfo) -> Mapping[str, Method]:
        """What an agent may call here."""

        async def heartbeat(params: Params) -> Params:
            try:
                self.heard(agent, Beat.of(params))
            except BadHeartbeat as bad:
                raise CallFailed("heartbeat", str(bad)) from None
            return {}

        return {HEARTBEAT: heartbeat}

    def heard(self, agent: AgentInfo, beat: Beat) -> None:
        """One has come, over a session of this very agent's."""
        beats = self._beats.setdefault(agent.cluster, {})
        beats[agent.instance] = replace(beat, agent=agent.agent, software=agent.software)
        self._heard[agent.cluster] = self._wall()
        self._tell(agent.cluster)

    def attached(self, cluster: str, instances: Iterable[str]) -> None:
        """These agents are there now: what others have said counts no more."""
        beats = self._beats.get(cluster)
        if beats is None:
            return
        there = set(instances)
        kept = {instance: beat for instance, beat in beats.items() if instance in there}
        if kept:
            self._beats[cluster] = kept
            return
        del self._beats[cluster], self._heard[cluster]
        self._tell(cluster)

    def clusters(self) -> list[str]:
        """Those whose agents have said something."""
        return list(self._beats)

    def of(self, cluster: str) -> list[Beat]:
        """Its agents' last ones."""
        return list(self._beats.get(cluster, {}).values())

    def pulse(self, cluster: str) -> Pulse | None:
        """All of them together; None where none is attached that has said anything."""
        beats = self._beats.get(cluster)
        return Pulse.of(beats.values(), self._heard[cluster]) if beats else None

    def _tell(self, cluster: str) -> None:
        for told in self._told:
            told(cluster)


def _object(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = params.get(name)
    if not isinstance(found, dict):
        raise BadHeartbeat(f"{name} must be an object")
    return found


def _text(params: Mapping[str, Any], name: str, limit: int) -> str:
    found = params.get(name)
    if not isinstance(found, str) or len(found) > limit or not found.isprintable():
        raise BadHeartbeat(f"{name} must be a text of at most {limit} printable characters")
    return found
