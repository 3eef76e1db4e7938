"""`kulvert backup` and `kulvert restore`: what a server cannot make anew, in one file, and back again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from cli import statedir
from cli.failures import Failed

_FILE = click.Path(dir_okay=False, path_type=Path, allow_dash=True)
_DASH = Path("-")


@click.command()
@click.argument("file", type=_FILE)
@statedir.option
def backup(file: Path, state_dir: Path) -> None:
    """Keep a server's state in FILE (- for stdout), while the server runs.

    \b
    kulvert backup kulvert-2030-01-31.tar
    kubectl exec deploy/kulvert -- kulvert backup - > kulvert.tar

    In it are the authorities, the keys that sign tokens, clusters, agents' certificates, stored and local grants, and
    revocations: it is as secret as the state directory. Not in it are the server's configuration and the files that it
    names, the audit log and recordings.
    """
    from cli.backupfile import taken, write
    from cli.version import current

    if file == _DASH and sys.stdout.isatty():
        raise Failed("the backup is no text for a terminal: name a file, or redirect the output")
    with taken(state_dir, current(), time.time()) as (manifest, contents), _target(file) as target:
        write(manifest, contents, target)
    size = sum(one.size for one in manifest.files)
    click.echo(f"{len(manifest.files)} files, {size} bytes, of {manifest.created}, in {file}: keep it secret", err=True)


@click.command()
@click.argument("file", type=_FILE)
@statedir.option
def restore(file: Path, state_dir: Path) -> None:
    """Fill an empty state directory from FILE (- for stdin), as `kulvert backup` made it.

    \b
    kulvert restore kulvert-2030-01-31.tar --state-dir /var/lib/kulvert

    Start the server with the same names and ports afterwards: agents come back by themselves, and users' credentials
    go on. What was revoked, removed or rotated after the backup is back as it was then: do it again.
    """
    from cli.lock import only_one
    from cli.restorefile import restore as restore_from

    with _source(file) as source, only_one(state_dir):
        manifest = restore_from(source, state_dir)
    names = ", ".join(one.name for one in manifest.files)
    click.echo(f"restored {names}, as they were at {manifest.created}, by Kulvert {manifest.version}", err=True)
    click.echo("what was revoked, removed or rotated since then is to be done again, before you start it", err=True)


@contextmanager
def _target(file: Path) -> Iterator[BinaryIO]:
    """Stdout, or a new file that is there whole or not at all, its owner's alone."""
    if file == _DASH:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    draft = file.with_name(f".{file.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        os.link(draft, file)  # unlike a rename, it fails where the name is taken
    except FileExistsError:
        raise Failed(f"{file} is there already: name another file") from None
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _source(file: Path) -> Iterator[BinaryIO]:
    if file == _DASH:
        yield sys.stdin.buffer
        return
    with file.open("rb") as source:
        yield source
