"""The agent's installation by a kubeconfig: server-side apply, then the wait until an agent is attached.

The kubeconfig's credential is in this process alone, for as long as the command runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cli.failures import Failed
from cli.terminal import Terminal
from cli.up.apiclient import ApiClient
from gateway.joining.install import apply, is_constrained, uid_of
from gateway.joining.manifest import Installation

if TYPE_CHECKING:
    from gateway.membership.stores import Stores

LOOK = 0.3


def install(
    stores: Stores,
    name: str,
    cluster_id: str | None,
    kubeconfig: Path,
    context: str | None,
    made: Callable[[bool], Installation],
    timeout: float,
) -> None:
    """`made` is told whether the cluster has constrained impersonation.

    :raises Failed, JoinFailed: the cluster is another one than was said, refuses an object, or no agent attaches in
        time.
    """
    asyncio.run(_install(stores, name, cluster_id, kubeconfig, context, made, timeout))


async def _install(
    stores: Stores,
    name: str,
    cluster_id: str | None,
    kubeconfig: Path,
    context: str | None,
    made: Callable[[bool], Installation],
    timeout: float,
) -> None:
    from agent.kubeconfig import load
    from gateway.membership.changes import accept

    terminal = Terminal()
    async with ApiClient(load(kubeconfig, context)) as api:
        with terminal.step("read the cluster's id") as step:
            found = step.detail = await uid_of(api)
        if cluster_id not in (None, found):
            raise Failed(f"the kubeconfig leads to cluster {found}, not to {cluster_id}: nothing was changed")
        with terminal.step("try the manifest") as step:
            installation = made(await is_constrained(api))
            await apply(api, installation.objects(), dry_run=True)
            if installation.constrained:
                step.detail = "with constrained impersonation"
        with terminal.step(f"accept it as {name}"):
            _, has_name = accept(stores, name, found, time.time(), None)
            if not has_name:
                raise Failed(f"the name {name!r} is another cluster's: `kulvert cluster switch {name} --to {found}`")
        with terminal.step("apply the manifest") as step:
            step.detail = f"{await apply(api, installation.objects())} objects"
    with terminal.step("wait until it is available") as step:
        step.detail = await _available(stores, name, timeout)
    terminal.line(f"cluster {name} has joined")


async def _available(stores: Stores, name: str, timeout: float) -> str:
    from gateway.membership.conditions import AVAILABLE, TRUE

    deadline = time.monotonic() + timeout
    while True:
        stores.registry.poll()
        cluster = stores.registry.get(name)
        conditions = {one.type: one for one in cluster.conditions} if cluster is not None else {}
        found = conditions.get(AVAILABLE)
        if found is not None and found.status == TRUE:
            return found.message
        if time.monotonic() >= deadline:
            why = found.message if found is not None else "nothing is known of it"
            raise Failed(
                f"cluster {name!r} is not available yet ({why}): see to the pods of namespace kulvert in it; "
                f"`kulvert cluster show {name}` says what the server knows"
            )
        await asyncio.sleep(LOOK)
