"""`kulvert cluster gate|condition|finalizer`: what others make a cluster wait for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import statedir
from cli.failures import Failed

if TYPE_CHECKING:
    from gateway.membership.cluster import Mark


@click.group()
def gate() -> None:
    """Conditions that must be True before users are let into a cluster.

    \b
    kulvert cluster gate add edge-7 example.com/Scanned
    kulvert cluster condition set edge-7 example.com/Scanned=True --reason Clean
    """


@gate.command("add")
@click.argument("name")
@click.argument("condition_type", metavar="TYPE")
@statedir.option
def gate_add(name: str, condition_type: str, state_dir: Path) -> None:
    """Let nobody in while this condition is not True."""
    from gateway.membership.cluster import Mark
    from gateway.membership.conditions import check_type

    _put(state_dir, name, Mark.GATE, check_type(condition_type))


@gate.command("remove")
@click.argument("name")
@click.argument("condition_type", metavar="TYPE")
@statedir.option
def gate_remove(name: str, condition_type: str, state_dir: Path) -> None:
    """Wait for this condition no more."""
    from gateway.membership.cluster import Mark

    _take(state_dir, name, Mark.GATE, condition_type)


@click.group()
def condition() -> None:
    """Conditions that others find out about a cluster."""


@condition.command("set")
@click.argument("name")
@click.argument("wanted", metavar="TYPE=STATUS")
@click.option("--reason", default="Set", help="One word for programs.")
@click.option("--message", default="", help="A sentence for people.")
@statedir.option
def condition_set(name: str, wanted: str, reason: str, message: str, state_dir: Path) -> None:
    """Set a condition: TYPE=True, TYPE=False or TYPE=Unknown."""
    from gateway.membership.conditions import BUILT_IN, Condition

    kind, equals, status = wanted.partition("=")
    if not equals:
        raise click.BadParameter(f"{wanted!r}: write TYPE=True, TYPE=False or TYPE=Unknown", param_hint="TYPE=STATUS")
    if kind in BUILT_IN:
        raise Failed(f"{kind} is what Kulvert finds out by itself")
    with statedir.registry(state_dir) as registry:
        cluster = registry.get(name)
        before = {one.type: one for one in cluster.conditions} if cluster is not None else {}
        made = Condition(kind, status, reason, message).after(before.get(kind), time.time())
        registry.set_condition(name, made)
    click.echo(f"cluster {name}: {kind} is {status}")


@click.group()
def finalizer() -> None:
    """Names that keep a cluster from being removed to the end, until whoever put them there takes them off."""


@finalizer.command("add")
@click.argument("name")
@click.argument("value", metavar="FINALIZER")
@statedir.option
def finalizer_add(name: str, value: str, state_dir: Path) -> None:
    """Put a finalizer on a cluster, for example example.com/dns."""
    from gateway.membership.cluster import Mark

    _put(state_dir, name, Mark.FINALIZER, value)


@finalizer.command("remove")
@click.argument("name")
@click.argument("value", metavar="FINALIZER")
@statedir.option
def finalizer_remove(name: str, value: str, state_dir: Path) -> None:
    """Take a finalizer off."""
    from gateway.membership.cluster import Mark

    _take(state_dir, name, Mark.FINALIZER, value)


def _put(state_dir: Path, name: str, mark: Mark, value: str) -> None:
    with statedir.registry(state_dir) as registry:
        registry.mark(name, mark, value)
    click.echo(f"cluster {name} has the {mark.value} {value}")


def _take(state_dir: Path, name: str, mark: Mark, value: str) -> None:
    with statedir.registry(state_dir) as registry:
        if not registry.unmark(name, mark, value):
            raise Failed(f"cluster {name!r} has no {mark.value} {value!r}: `kulvert cluster show {name}` shows them")
    click.echo(f"cluster {name} has no {mark.value} {value} any more")
