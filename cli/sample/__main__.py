"""`python -m cli.sample`: the sample alone, until it is interrupted."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from cli.sample.server import SampleServer


@click.command()
@click.option("--port", default=0, show_default="a free one", help="Port on 127.0.0.1 to listen on.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Where to write the kubeconfig.")
@click.option("--token", envvar="KULVERT_SAMPLE_TOKEN", help="The agent's token; generated if not given.")
def main(port: int, kubeconfig: Path | None, token: str | None) -> None:
    """Run Kulvert's sample API server, which is not a cluster, and print how to reach it."""
    with TemporaryDirectory(prefix="kulvert-sample-config-") as directory:
        asyncio.run(_run(port, kubeconfig or Path(directory, "kubeconfig"), token))


async def _run(port: int, kubeconfig: Path, token: str | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with SampleServer(token, port) as server:
        server.kubeconfig(kubeconfig)
        click.echo("a sample API server, not a cluster: exec runs commands on this machine, as you")
        click.echo(f"url         {server.url}")
        click.echo(f"kubeconfig  {kubeconfig}")
        await stop.wait()


if __name__ == "__main__":
    main()
