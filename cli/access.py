"""`kulvert access explain`: who may do what, by which grant, and why not by the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cli.grantbook import Object, Where, opened, where


@click.group()
def access() -> None:
    """Ask who may do what.

    \b
    kulvert access explain ada edge-7 get pods --group dev --namespace team-a
    kulvert access explain ada edge-7 create pods/exec web-0 --group dev --namespace team-a
    kulvert access explain ada edge-7 get /metrics
    kulvert access explain system:serviceaccount:ci:deployer edge-7 patch deployments.apps web --namespace team-a
    """


@access.command()
@click.argument("user")
@click.argument("cluster")
@click.argument("verb")
@click.argument("resource", metavar="RESOURCE[.GROUP][/SUBRESOURCE]|/PATH")
@click.argument("name", required=False)
@click.option("--group", "groups", multiple=True, metavar="NAME", help="A group of the user; may be repeated.")
@click.option("-n", "--namespace", metavar="NAME", help="The namespace. Without it: of the whole cluster.")
@click.option("--subresource", metavar="NAME", help="As RESOURCE/SUBRESOURCE.")
@click.option("--pass-through", is_flag=True, help="The user is a service account of the cluster itself.")
@click.option(
    "--grants",
    "grants_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The grants file, if it is not the state's.",
)
@click.option("-o", "--output", type=click.Choice(("text", "json")), default="text", help="How it is written.")
@where
def explain(where: Where, grants_file: Path | None, output: str, **given: Any) -> None:
    """Say whether USER may VERB RESOURCE in CLUSTER, which grant decides, and why others do not.

    What the cluster's own RBAC then says, `kubectl auth can-i` tells. The exit code is 1 where the answer is no.
    """
    with opened(where, grants_file) as book:
        found = book.review(_question(given))
    if output == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        for line in _told(found):
            click.echo(line)
    if not found["allowed"]:
        click.get_current_context().exit(1)


def _question(given: dict[str, Any]) -> Object:
    spec: Object = {"user": given["user"], "cluster": given["cluster"], "verb": given["verb"]}
    spec |= {"path" if given["resource"].startswith("/") else "resource": given["resource"]}
    spec |= {key: given[key] for key in ("name", "namespace", "subresource") if given[key]}
    spec |= {"groups": list(given["groups"])} if given["groups"] else {}
    return spec | ({"passThrough": True} if given["pass_through"] else {})


def _told(found: Object) -> list[str]:
    from cli.login.address import plain
    from cli.table import table

    lines = [f"{'yes' if found['allowed'] else 'no'}: {plain(found['reason'], 1_000)}"]
    if seen := found.get("impersonated"):
        groups = f", in groups {', '.join(seen['groups'])}" if seen["groups"] else ", in no groups"
        lines.append(plain(f"the cluster sees user {seen['user']}{groups}", 2_000))
    if found.get("passThrough"):
        lines.append("the cluster sees the service account itself")
    rows = [tuple(plain(one.get(key), 500) for key in ("rule", "source", "verdict")) for one in found["considered"]]
    if rows:
        lines += ["", *table(("GRANT", "SOURCE", "VERDICT"), rows)]
    if found["others"]:
        lines += ["", f"{found['others']} more in force {'names' if found['others'] == 1 else 'name'} somebody else"]
    return lines
