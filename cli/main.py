"""The `kulvert` command. Each subcommand is imported when it is called, so that help and completion are instant."""

from __future__ import annotations

import click

from cli.lazy import Entry, LazyGroup

EPILOG = """\b
A first look, with a sample API server in place of a cluster:
  kulvert up

\b
A server, and the agent of a cluster:
  kulvert serve --config server.yaml
  kulvert cluster add edge-7
  kulvert token create edge-7
  kulvert agent --config agent.yaml
  kulvert kubeconfig edge-7 --user ada --group dev -o edge-7.yaml
  kubectl --kubeconfig edge-7.yaml get pods

The options of up, serve and agent are environment variables too, as in KULVERT_STATE_DIR; each command's --help names
its own.
"""

COMMANDS = (
    Entry("up", "cli.up.command:up", "Server, agent and a cluster in one process, for a first look."),
    Entry("serve", "cli.serve:serve", "Run the server: the users' and the agents' door."),
    Entry("agent", "cli.agent:agent", "Run the agent of one cluster."),
    Entry("cluster", "cli.cluster:cluster", "Add, list and remove clusters."),
    Entry("token", "cli.token:token", "Make, list and revoke the agents' join tokens."),
    Entry("grant", "cli.grant:grant", "Who may reach which cluster: make, list and delete grants."),
    Entry("access", "cli.access:access", "Which grant decides about a request, and why."),
    Entry("kubeconfig", "cli.kubeconfig:kubeconfig", "Write a kubeconfig for a cluster, or all that you may reach."),
    Entry("login", "cli.login.command:login", "Sign in at the gateway's OIDC issuer."),
    Entry("logout", "cli.login.logout:logout", "Forget what login has kept, and revoke it."),
    Entry("credential", "cli.credential:credential", "kubectl's credential plugin: who you are, kept fresh."),
    Entry("certificate", "cli.certificate:certificate", "List and revoke the credentials that users were issued."),
    Entry("signing-key", "cli.signingkey:signing_key", "List and rotate the keys that sign Kulvert's tokens."),
    Entry("authority", "cli.authority:authority", "List and replace the authorities that sign certificates."),
    Entry("backup", "cli.backup:backup", "Keep a server's state in one file, while it runs."),
    Entry("restore", "cli.backup:restore", "Fill an empty state directory from a backup."),
    Entry(
        "serviceaccount",
        "cli.serviceaccount:serviceaccount",
        "Have service accounts made in clusters, their tokens in files.",
    ),
    Entry("version", "cli.version:version", "Print the version."),
)


@click.group(
    cls=LazyGroup,
    entries=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
)
def main() -> None:
    """Kulvert: plain kubectl, to clusters that nobody can dial.

    An agent in each cluster dials out to the server. Users point a kubeconfig at the server, which knows who they are,
    and lets the cluster's own RBAC decide.
    """


if __name__ == "__main__":
    main()
