"""`kulvert signing-key`: the keys that sign Kulvert's own tokens."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import statedir
from cli.duration import seconds, spoken
from cli.failures import Failed

if TYPE_CHECKING:
    from auth.tokenkeysfile import KeyFile


@click.group("signing-key")
def signing_key() -> None:
    """List and rotate the keys that sign Kulvert's own tokens.

    \b
    kulvert signing-key list
    kulvert signing-key rotate
    kulvert signing-key rotate --compromised

    A running server rotates them by itself (tokens.rotateEvery), and follows these commands within a second.
    """


@signing_key.command("list")
@statedir.option
def list_(state_dir: Path) -> None:
    """List the keys by id: which one signs, which will, and which are only known for old tokens."""
    from cli.table import table
    from gateway.state import ISSUER

    now = time.time()
    ring = _file(state_dir).load(ISSUER, now)
    rows = []
    for key in ring.keys:
        gone = ring.gone(key)
        until = "-" if gone is None else _time(gone)
        rows.append((key.verification.kid, ring.phase(key, now), _time(key.created), _time(key.active), until))
    for line in table(("ID", "PHASE", "CREATED", "SIGNS FROM", "KNOWN UNTIL"), rows):
        click.echo(line)


@signing_key.command()
@click.option("--lead", type=seconds, default="1h", metavar="SPAN", help="How long it is published before it signs.")
@click.option("--compromised", is_flag=True, help="Forget all other keys at once: every token that they signed ends.")
@statedir.option
def rotate(lead: float, compromised: bool, state_dir: Path) -> None:
    """Make a new key. Tokens of the old ones stay good until they expire, unless --compromised says otherwise."""
    from gateway.state import ISSUER

    now = time.time()
    file = _file(state_dir)
    if compromised:
        ring = file.change(lambda old: old.replaced(now), ISSUER, now)
        click.echo(f"key {ring.keys[-1].verification.kid} signs from now on; all tokens of other keys have ended")
        return
    before = {key.verification.kid for key in file.load(ISSUER, now).keys}
    newest = file.change(lambda old: old.rotated(now, lead), ISSUER, now).keys[-1]
    if newest.verification.kid in before:
        raise Failed(f"key {newest.verification.kid} waits for its turn already, from {_time(newest.active)} on")
    click.echo(
        f"key {newest.verification.kid} is published, and signs in {spoken(lead)}, from {_time(newest.active)} on"
    )


def _file(state_dir: Path) -> KeyFile:
    from gateway.state import State

    if not statedir.registry_file(state_dir).exists():
        raise Failed(f"there is no server's state in {state_dir}: name it by --state-dir or {statedir.VARIABLE}")
    return State(state_dir).token_keys


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%MZ")
