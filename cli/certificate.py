"""`kulvert certificate`: what the server has issued to users, certificates and tokens, and how to take it back."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import statedir
from cli.failures import Failed

if TYPE_CHECKING:
    from gateway.issuing.store import IssuedCredential, RevocationStore
    from gateway.membership.registry import SqliteRegistry


@click.group()
def certificate() -> None:
    """List and revoke users' certificates and tokens.

    \b
    kulvert certificate list --user ada
    kulvert certificate revoke 5f3a90c1d2
    kulvert certificate revoke --user ada

    They work on the state directory of the server, on its machine. What is revoked is refused within 30 seconds, on
    connections and streams that are open, too.
    """


@certificate.command("list")
@click.option("--user", default=None, help="What was issued to this user alone.")
@click.option("--all", "expired", is_flag=True, help="Also what has expired, but can have been renewed.")
@statedir.option
def list_(user: str | None, expired: bool, state_dir: Path) -> None:
    """List what users were issued and is good or revoked, the newest first.

    What `kulvert kubeconfig` has signed on this machine, and other authorities, is not in it; it can be revoked all the
    same.
    """
    from cli.table import table

    now = time.time()
    with statedir.registry(state_dir) as registry:
        store = _store(registry)
        issued = [one for one in store.issued() if user in (None, one.user) and (expired or one.expires > now)]
        rows = [_row(one, store, now) for one in issued]
    for line in table(("KIND", "ID", "USER", "ISSUED", "EXPIRES", "STATE"), rows):
        click.echo(line)


@certificate.command()
@click.argument("number", metavar="[SERIAL]", required=False)
@click.option("--user", default=None, help="Everything that was issued to this user until now.")
@statedir.option
def revoke(number: str | None, user: str | None, state_dir: Path) -> None:
    """Take back a certificate by its serial number or a token by its id, with all that was renewed from it.

    Of a user, everything goes that was issued until now, certificates of other authorities included. Whoever can still
    log in is issued new ones: take that away where the login is.
    """
    if (number is None) is (user is None):
        raise click.UsageError("name either a SERIAL (or a token's id), or --user NAME")
    now = time.time()
    with statedir.registry(state_dir) as registry:
        store = _store(registry)
        if user is not None:
            count = store.revoke_user(user, now)
            click.echo(f"everything issued to {user} until now is revoked, {count} of it recorded here")
        elif number is not None:
            _revoke_one(store, number, now)


def _revoke_one(store: RevocationStore, number: str, now: float) -> None:
    if not number.isprintable() or not 0 < len(number) <= 128 or " " in number:
        raise Failed(f"{number!r} is no serial number and no token's id: `kulvert certificate list` shows them")
    gone = store.revoke(number, now)
    for kind, value, user in gone:
        click.echo(f"{kind} {value} of {user} revoked")
    if not gone:
        click.echo(f"there is no record of {number}; a certificate or token of that number is refused from now on")


def _store(registry: SqliteRegistry) -> RevocationStore:
    from gateway.issuing.store import RevocationStore

    return RevocationStore(registry.database)


def _row(one: IssuedCredential, store: RevocationStore, now: float) -> tuple[str, ...]:
    state = "revoked" if store.is_revoked(one) else "expired" if one.expires <= now else "good"
    return (one.kind, one.value, one.user, _time(one.issued), _time(one.expires), state)


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%MZ")
