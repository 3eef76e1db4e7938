"""The check: the path as a user's kubectl takes it, step by step, each with what it found and how long it took."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp

from cli.failures import Failed
from cli.terminal import Terminal
from cli.up.gatewayclient import GatewayClient, Object
from cli.up.request import ADMINS, USER

ATTACH = 30.0
"""Seconds: the agent learns the cluster's id, dials, and asks its API server how it is."""
RBAC = 10.0
"""Seconds: an API server sees a new binding a little later."""
AGAIN = 0.1
_REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
_EXEC = "/api/v1/namespaces/default/pods/demo/exec?command=uname&stdout=true&stderr=true&container=demo"
T = TypeVar("T")


class Checks:
    """`run` is the whole check; `pod` is what it found to try exec and logs on, as namespace and name."""

    def __init__(self, cluster: str, client: GatewayClient, anonymous: GatewayClient, terminal: Terminal) -> None:
        self._cluster = cluster
        self._client = client
        self._anonymous = anonymous
        self._terminal = terminal
        self.pod: tuple[str, str] | None = None

    async def run(self, *, sample: bool) -> None:
        """:raises Failed: a step did, and says why."""
        await self._step("agent attached", self._attached)
        await self._step("/readyz through the tunnel", self._ready)
        await self._step("without a credential", self._refused)
        await self._step("who the cluster sees", self._whoami)
        await self._step("list pods", self._pods)
        if sample:
            await self._step("exec in pod demo", self._exec)

    async def _step(self, name: str, work: Callable[[], Awaitable[str]]) -> None:
        with self._terminal.step(name) as step:
            try:
                step.detail = await work()
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
                step.detail = str(error) or type(error).__name__
                raise Failed(f"the check failed at {name!r}: {step.detail}; --log-level info says more") from error
            except Failed as failed:
                step.detail = str(failed)
                raise Failed(f"the check failed at {name!r}: {failed}; --log-level info says more") from failed

    async def _attached(self) -> str:
        async def ready() -> Object | None:
            found = [one for one in await self._client.clusters() if one["metadata"]["name"] == self._cluster]
            if not found:
                raise Failed(f"the grants file lets nobody of {ADMINS} reach {self._cluster!r}: add a grant to it")
            state: Object = found[0]["status"]
            return state if state["ready"] else None

        state = await _until(ready, ATTACH, "no agent has attached, or its API server is not ready")
        return f"cluster id {state['clusterId']}"

    async def _ready(self) -> str:
        status, text = await self._client.get("/readyz")
        if status != 200:
            raise Failed(f"status {status}: {_message(text)}")
        return f"{status} {text.strip()[:20]}"

    async def _refused(self) -> str:
        status, _ = await self._anonymous.get("/api/v1/namespaces")
        if status != 401:
            raise Failed(f"status {status}, where 401 is right")
        return "401, as it must be"

    async def _whoami(self) -> str:
        status, found = await self._client.json("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", _REVIEW)
        if status != 201:
            raise Failed(f"status {status}: {found.get('message')}")
        info = found["status"]["userInfo"]
        if info["username"] != USER or ADMINS not in info["groups"]:
            raise Failed(f"the cluster sees {info['username']!r} in {info['groups']}")
        return f"{info['username']}, in {', '.join(info['groups'])}"

    async def _pods(self) -> str:
        async def listed() -> Object | None:
            status, found = await self._client.json("GET", "/api/v1/pods?limit=500")
            if status not in (200, 403):
                raise Failed(f"status {status}: {found.get('message')}")
            return found if status == 200 else None

        found = await _until(listed, RBAC, "the cluster's RBAC does not let admin list pods")
        self.pod = _running(found["items"])
        more = " and more" if found["metadata"].get("continue") else ""
        return f"{len(found['items'])}{more}"

    async def _exec(self) -> str:
        messages = await self._client.websocket(_EXEC, "v5.channel.k8s.io")
        text = b"".join(message[1:] for message in messages if message[:1] == b"\x01").decode(errors="replace").strip()
        if not text:
            raise Failed("the stream ended without an answer")
        return f"uname: {text}"


async def _until(question: Callable[[], Awaitable[T | None]], patience: float, otherwise: str) -> T:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while (answer := await question()) is None:
        if loop.time() >= deadline:
            raise Failed(f"{otherwise} within {patience:.0f} s")
        await asyncio.sleep(AGAIN)
    return answer


def _running(pods: list[Object]) -> tuple[str, str] | None:
    for pod in pods:
        if pod.get("status", {}).get("phase") == "Running":
            return pod["metadata"]["namespace"], pod["metadata"]["name"]
    return None


def _message(text: str) -> str:
    """Of a Status, or the text itself."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.strip()[:200]
