"""`python -m benchmarks.chaos --seed N --minutes M`: chaos for as long as one likes (tests/e2e/test_chaos.py is short).

Prints its seed, every fault, and what users were told. Ends with 1 where an invariant did not hold.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

import click
import uvloop

from tests.support.chaos import run
from tests.support.chaos_scene import Scene
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import bind
from tests.support.netns import why_not
from tests.testbed.place import locate

ROUND = 60.0
LONGEST = 20.0
AROUND = 25.0
"""Seconds that a round takes beside its faults, about."""


@click.command()
@click.option("--seed", type=int, envvar="KULVERT_CHAOS_SEED", help="Of everything that happens; by chance if not set.")
@click.option("--minutes", default=10.0, show_default=True, help="For each mode, about.")
@click.option("--mode", "modes", multiple=True, type=click.Choice(["standby", "sharded"]))
@click.option("--plain", is_flag=True, help="Without network namespaces, and so without faults of the network.")
@click.option("--keep", type=click.Path(path_type=Path), help="A directory for logs, which stay there.")
def main(seed: int | None, minutes: float, modes: tuple[str, ...], plain: bool, keep: Path | None) -> None:
    """Faults at random, and what must hold whatever happens."""
    if not plain and (reason := why_not()):
        raise click.ClickException(f"{reason}: run as root, or with --plain")
    chosen = seed if seed is not None else secrets.randbelow(1_000_000)
    rounds = max(1, round(minutes * 60 / (ROUND + AROUND)))
    with tempfile.TemporaryDirectory(prefix="kulvert-chaos-") as temporary:
        directory = keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        problems = [
            problem
            for mode in modes or ("standby", "sharded")
            for problem in uvloop.run(_one(directory, mode, chosen, rounds, plain))
        ]
    for problem in problems:
        click.echo(f"DID NOT HOLD: {problem}")
    click.echo(f"seed {chosen}: {'all invariants held' if not problems else f'{len(problems)} problems'}")
    sys.exit(1 if problems else 0)


async def _one(directory: Path, mode: str, seed: int, rounds: int, plain: bool) -> list[str]:
    binaries = locate(os.environ)
    async with Cluster("beta", binaries, directory) as hub, Cluster("alpha", binaries, directory) as real:
        await bind(real, "cluster-admin", group="kulvert:admins")
        async with Scene(directory / mode, hub, real, mode, plain=plain) as scene:
            found = await run(scene, seed, rounds, ROUND, LONGEST, _say)
    return [f"{mode}: {problem}" for problem in found.problems]


def _say(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {text}")


if __name__ == "__main__":
    main()
