"""Where a kubeconfig goes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

from cli.kubeconfigtree import Kubeconfig

STDOUT = Path("-")


def own_kubeconfig(env: Mapping[str, str]) -> Path:
    """kubectl's own rule: the first file of $KUBECONFIG, else ~/.kube/config."""
    listed = [part for part in env.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"


def saved(config: Kubeconfig, target: Path) -> None:
    """Write it; a word about the comments that are lost by that, and where they are."""
    if backup := config.write(target):
        click.echo(f"{target} had comments, which are not kept: {backup} is the file as it was", err=True)
