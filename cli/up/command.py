"""`kulvert up`: the command, its options and their meaning."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli import logs, statedir


@click.command()
@click.option("--kubeconfig", type=click.Path(dir_okay=False, exists=True, path_type=Path), envvar="KULVERT_KUBECONFIG",
              show_envvar=True, help="A cluster of your own; without it the embedded sample API server.")  # fmt: skip
@click.option("--context", envvar="KULVERT_CONTEXT", show_envvar=True,
              help="A context of that kubeconfig.  [default: its current one]")  # fmt: skip
@click.option("--cluster", envvar="KULVERT_CLUSTER", show_envvar=True,
              help="The cluster's name.  [default: sample; with --kubeconfig the context's, or cluster]")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), envvar="KULVERT_UP_PORT", show_envvar=True,
              help="The users' port.  [default: 8443, or a free one where that is taken]")  # fmt: skip
@statedir.option_of_first_look
@logs.options("warning")
def up(
    kubeconfig: Path | None, context: str | None, cluster: str | None, port: int | None, state_dir: Path,
    log_level: str, log_format: str,
) -> None:  # fmt: skip
    """Server, agent and a cluster in one process, for a first look: start, check the whole path, print `ready`.

    \b
    kulvert up                                     with the embedded sample API server
    kulvert up --kubeconfig FILE                   with a cluster of your own
    kulvert up --kubeconfig FILE --context NAME --cluster edge-7 --port 9443

    It listens on 127.0.0.1 only, and writes admin.kubeconfig into the state directory (mode 0600): its context reaches
    the cluster as user admin, group kulvert:admins, by a client certificate that is good for a day.

    Nothing is done to a cluster that you did not name: without --kubeconfig, your current context is not looked at.
    With it, `up` makes one object there, the ClusterRoleBinding kulvert-up-admins (kulvert:admins to cluster-admin),
    and removes it at the end. The kubeconfig's user must be a cluster administrator, by token or client certificate.

    Ctrl-C ends everything and removes what was made; a second Ctrl-C does not wait. KULVERT_KUBECTL is how the printed
    commands call kubectl.
    """
    logs.configure(log_level, log_format)
    raise SystemExit(_run(kubeconfig, context, cluster, port, state_dir.absolute()))


def _run(kubeconfig: Path | None, context: str | None, cluster: str | None, port: int | None, state_dir: Path) -> int:
    from cli.loop import run
    from cli.terminal import Terminal
    from cli.up.request import Request, cluster_name
    from cli.up.session import Session
    from cli.version import current

    if context is not None and kubeconfig is None:
        raise click.UsageError("--context needs --kubeconfig: `up` uses no cluster that was not named")
    name = cluster_name(cluster, context or _current_context(kubeconfig), sample=kubeconfig is None)
    program = os.environ.get("KULVERT_KUBECTL") or "kubectl"
    request = Request(name, state_dir, kubeconfig, context, port, program)
    return run(Session(request, Terminal(), current()).run)


def _current_context(kubeconfig: Path | None) -> str | None:
    from cli.kubeconfigfile import read

    found = read(kubeconfig).get("current-context") if kubeconfig else None
    return found if isinstance(found, str) else None
