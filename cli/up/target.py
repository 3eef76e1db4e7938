"""The API server that `up` tunnels to: the embedded sample, or a cluster of the user's own."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cli.up.request import Request


@dataclass(frozen=True, slots=True)
class Target:
    """Where it is, and the kubeconfig that the agent uses. `notes` are for the user."""

    address: str
    kubeconfig: Path
    context: str | None
    notes: tuple[str, ...]


async def reach(request: Request, stack: AsyncExitStack) -> Target:
    """Start the sample, or make the binding in the named cluster; `stack` undoes it.

    :raises Failed: it cannot be used.
    """
    if request.kubeconfig is None:
        return await _sample(stack)
    return await _cluster(request.kubeconfig, request.context, stack)


async def _sample(stack: AsyncExitStack) -> Target:
    from cli.sample import SampleServer

    server = await stack.enter_async_context(SampleServer())
    directory = Path(stack.enter_context(TemporaryDirectory(prefix="kulvert-up-")))
    kubeconfig = server.kubeconfig(directory / "agent.kubeconfig", user=None)
    notes = (
        "this is the embedded sample API server, not a cluster: objects live in memory, and",
        "exec runs commands on this machine, as you",
        "a cluster of your own: kulvert up --kubeconfig FILE",
    )
    return Target(server.url, kubeconfig, None, notes)


async def _cluster(kubeconfig: Path, context: str | None, stack: AsyncExitStack) -> Target:
    from agent.kubeconfig import load
    from cli.up.apiclient import ApiClient
    from cli.up.binding import LABEL, NAME, OURS, ROLE, Binding
    from cli.up.request import ADMINS

    api = await stack.enter_async_context(ApiClient(load(kubeconfig, context)))
    binding = await stack.enter_async_context(Binding(api))
    verb = "found and adopted" if binding.adopted else "made"
    notes = (
        f"{verb} there, and removed at the end: ClusterRoleBinding {NAME}",
        f"(group {ADMINS} to {ROLE}; label {LABEL}={OURS})",
    )
    return Target(api.address, kubeconfig, context, notes)
