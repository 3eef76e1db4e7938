"""`kulvert grant`: who may reach which clusters, for what and as whom."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli import grantapply
from cli.duration import seconds
from cli.failures import Failed
from cli.grantbook import Object, Where, opened, where


@click.group()
def grant() -> None:
    """Say who may reach which clusters, for what, as whom, and until when.

    \b
    kulvert grant create dev --group dev --cluster 'edge-*' --namespace 'team-*'
    kulvert grant create look --group all --cluster-label env=dev --read-only --ttl 30d
    kulvert grant create own --user ada --cluster edge-7 --delegate
    kulvert grant apply -f grants/
    kulvert grant list
    kulvert grant show dev
    kulvert grant delete dev
    kulvert access explain ada edge-7 get pods --namespace team-a

    They work on the state directory of the server, on its machine, and a running server follows within a second; or,
    with --server or --kubeconfig, over a gateway's API: owners may grant what they have themselves. Grants in the
    server's grants file come first, and are changed there.
    """


@grant.command()
@click.argument("name")
@click.option("--user", "users", multiple=True, metavar="NAME", help="Somebody whom it is for; may be repeated.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="A group that it is for; may be repeated.")
@click.option(
    "--service-account", "accounts", multiple=True, metavar="NAMESPACE/NAME", help="One of the hub's; may be repeated."
)
@click.option("--cluster", "clusters", multiple=True, metavar="NAME", help="A cluster, or a pattern with *.")
@click.option("--cluster-label", "labels", multiple=True, metavar="KEY=VALUE", help="Only clusters that have it.")
@click.option("--read-only", is_flag=True, help="Get, list and watch, and nothing that gives a hand inside.")
@click.option("--verb", "verbs", multiple=True, metavar="VERB", help="Only this verb; may be repeated.")
@click.option("--resource", "resources", multiple=True, metavar="R[.GROUP][/SUB]", help="Only this resource.")
@click.option("--namespace", "namespaces", multiple=True, metavar="NAME", help="Only this namespace, or pattern.")
@click.option("--no-interactive", is_flag=True, help="No exec, attach, port-forward, proxy or console.")
@click.option("--delegate", is_flag=True, help="Its holders may grant what is within it.")
@click.option("--ttl", type=seconds, default=None, metavar="SPAN", help="For how long; without it for good.")
@click.option("--priority", type=int, default=0, help="Lower comes first, and the first that matches decides.")
@where
def create(name: str, where: Where, **given: Any) -> None:
    """Make a grant. What else a grant can say, `apply` reads from a file."""
    document = {"apiVersion": "kulvert.dev/v1alpha1", "kind": "Grant", "metadata": {"name": name}, "spec": _spec(given)}
    with opened(where) as book:
        book.create(document)
    click.echo(f"grant {name} created")


@grant.command()
@click.option(
    "-f", "--filename", "paths", multiple=True, required=True, type=click.Path(exists=True, path_type=Path),
    help="A file of `kind: Grant` documents, or a directory of such files; may be repeated.",
)  # fmt: skip
@click.option("--label", metavar="KEY=VALUE", help="A label that all of them get.")
@click.option("--prune", is_flag=True, help="Delete grants that carry --label, and are in the files no more.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@where
def apply(paths: tuple[Path, ...], label: str | None, prune: bool, dry_run: bool, where: Where) -> None:
    """Bring the stored grants to what files say. To do it twice changes nothing more."""
    if prune and not label:
        raise Failed("--prune needs --label KEY=VALUE, which tells your grants from others'")
    wanted = grantapply.read(paths, grantapply.label_of(label) if label else None)
    with opened(where) as book:
        steps = grantapply.plan(wanted, book.list(), grantapply.label_of(label) if prune and label else None)
        for step in steps:
            if not dry_run:
                grantapply.take(step, book)
            click.echo(f"grant {step.name} {step.outcome}{' (dry run)' if dry_run else ''}")


@grant.command("list")
@where
def list_(where: Where) -> None:
    """List the grants, in the order of their sources; of those that match, the first decides."""
    from cli.login.address import plain
    from cli.table import table

    with opened(where) as book:
        rows = [tuple(plain(cell, 500) for cell in _row(one)) for one in book.list()]
    for line in table(("NAME", "SOURCE", "SUBJECTS", "CLUSTERS", "ACCESS", "EXPIRES", "IN FORCE"), rows):
        click.echo(line)


@grant.command()
@click.argument("name")
@click.option("-o", "--output", type=click.Choice(("yaml", "json")), default="yaml", help="How it is written.")
@where
def show(name: str, output: str, where: Where) -> None:
    """Show a grant, as `apply` reads it."""
    import yaml

    with opened(where) as book:
        found = _found(book.list(), name)
    if output == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(yaml.safe_dump(found, sort_keys=False), nl=False)


@grant.command()
@click.argument("name")
@where
def delete(name: str, where: Where) -> None:
    """Delete a grant: what it allowed ends, live streams too, within 30 seconds."""
    with opened(where) as book:
        found = _found(book.list(), name)
        book.delete(name, _version(found))
    click.echo(f"grant {name} deleted")


def _spec(given: dict[str, Any]) -> Object:
    subjects = [{"kind": "User", "name": one} for one in given["users"]]
    subjects += [{"kind": "Group", "name": one} for one in given["groups"]]
    subjects += [_account(one) for one in given["accounts"]]
    access: Object = {key: list(given[key]) for key in ("verbs", "resources", "namespaces") if given[key]}
    access |= {"readOnly": True} if given["read_only"] else {}
    access |= {"interactive": False} if given["no_interactive"] else {}
    spec: Object = {"subjects": subjects, "priority": given["priority"], "delegate": given["delegate"]}
    spec |= {"clusters": list(given["clusters"])} if given["clusters"] else {}
    labels = dict(map(grantapply.label_of, given["labels"]))
    spec |= {"clusterSelector": {"matchLabels": labels}} if labels else {}
    spec |= {"access": access} if access else {}
    return spec | ({"expirationTimestamp": _moment(time.time() + given["ttl"])} if given["ttl"] else {})


def _account(text: str) -> Object:
    namespace, slash, name = text.partition("/")
    if not slash or not namespace or not name:
        raise click.BadParameter(
            f"{text!r} is no service account: write NAMESPACE/NAME", param_hint="--service-account"
        )
    return {"kind": "ServiceAccount", "namespace": namespace, "name": name}


def _found(grants: list[Object], name: str) -> Object:
    for one in grants:
        if one["metadata"]["name"] == name:
            return one
    raise Failed(f"there is no grant {name!r}: `kulvert grant list` shows them")


def _version(found: Object) -> str:
    version = found["metadata"].get("resourceVersion")
    if version is None:
        raise Failed(f"grant {found['metadata']['name']!r} is kept in the {found['status']['source']}: change it there")
    return str(version)


def _row(one: Object) -> tuple[str, ...]:
    spec, status = one["spec"], one["status"]
    subjects = ",".join(_subject(subject) for subject in spec.get("subjects", ())) or "-"
    clusters = ",".join(map(str, spec.get("clusters", ()))) or "-"
    chosen = f"{clusters} (selected)" if "clusterSelector" in spec else clusters
    access = spec.get("access")
    limits = "all" if access is None else "read-only" if access.get("readOnly") else "limited"
    force = "yes" if status.get("inForce") else f"no: {status.get('message', '')}"
    name, expires = one["metadata"]["name"], str(spec.get("expirationTimestamp", "-"))
    return name, status["source"], subjects, chosen, limits, expires, force


def _subject(subject: Object) -> str:
    where = f"{subject['namespace']}/" if "namespace" in subject else ""
    of = f"@{subject['cluster']}" if "cluster" in subject else ""
    return f"{str(subject.get('kind')).lower()}:{where}{subject.get('name')}{of}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
