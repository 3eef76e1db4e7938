"""`kulvert kubeconfig` for oneself: which clusters one may reach, asked with one's own credentials."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.credential import said
from cli.failures import Failed
from cli.kubeconfigclusters import Contexts, Merged, choose, merge
from cli.kubeconfigtree import Kubeconfig, locked
from cli.kubeconfigwrite import STDOUT, own_kubeconfig, saved
from cli.login.address import gateway
from cli.tokencache import CERTIFICATE, LOGIN, TOKEN, LoginKey, TokenCache, directory

if TYPE_CHECKING:
    from cli.credentialsource import Source

_OPTIONS = {LOGIN: "", CERTIFICATE: "--certificate", TOKEN: "--kulvert-token"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What was said on the command line."""

    server: str | None
    profile: str
    by_certificate: bool | None
    prefix: str | None
    use: str | None
    prune: bool
    force: bool
    certificate_authority: Path | None

    @property
    def kind(self) -> str:
        """Of the credential that kubectl will use."""
        return LOGIN if self.by_certificate is None else CERTIFICATE if self.by_certificate else TOKEN


def write_own(asked: Asked, output: Path | None, merging: bool) -> None:
    """:raises Failed: nothing was written; the text says what to do."""
    from cli.login.command import the_only_server

    cache = TokenCache(directory(os.environ), said)
    server = gateway(asked.server or the_only_server(cache))
    wanted = _contexts(asked, cache, server, _ca(asked))
    target = output or (own_kubeconfig(os.environ) if merging else STDOUT)
    if not wanted.clusters and not asked.prune:
        raise Failed(f"you may reach no cluster at {server}: ask its administrator for a grant; nothing was written")
    if target == STDOUT:
        config = Kubeconfig.empty()
        _merge(config, wanted, asked)
        click.echo(config.text(), nl=False)
        return
    with locked(target):
        config = Kubeconfig.read(target)
        _check_alone(config, wanted, target, merging)
        merged = _merge(config, wanted, asked)
        saved(config, target)
    _told(wanted, merged, config, target)


def _contexts(asked: Asked, cache: TokenCache, server: str, ca: str) -> Contexts:
    import asyncio

    from cli.credentialsource import Source, configuration, ways_here
    from cli.login.command import remembered_ca

    key = _known(cache, server, asked.profile)
    if key is None:
        ca = ca or remembered_ca(cache, server)
        found = asyncio.run(configuration(server, ca, said))
        key = LoginKey(server, found.issuer, found.client_id, asked.profile)
    source = Source(cache, key, said, sys.stdin.isatty(), ways_here(), ca)
    clusters, trusted = asyncio.run(_reached(source, asked.kind, ca))
    prefix = asked.prefix if asked.prefix is not None else f"kulvert-{asked.profile}/" if asked.profile else "kulvert/"
    return Contexts(key, clusters, prefix, _OPTIONS[asked.kind], trusted.encode())


async def _reached(source: Source, kind: str, ca: str) -> tuple[tuple[str, ...], str]:
    """The clusters, and what the gateway is trusted by. A certificate is made now, so that what is wrong shows now."""
    from cli.login.web import Unreachable

    login = await source.login()
    if kind != LOGIN:
        await source.minted(kind)
    try:
        async with source.gateway(login.id_token) as api:
            return await api.clusters(), ca or login.ca
    except Unreachable as error:
        raise Failed(f"{error}; nothing was written") from None


def _known(cache: TokenCache, server: str, profile: str) -> LoginKey | None:
    found = [key for key in cache.logins() if (key.server, key.profile) == (server, profile)]
    if len(found) > 1:
        issuers = ", ".join(key.issuer for key in found)
        raise Failed(f"you are signed in at {server} by several issuers ({issuers}): `kulvert logout`")
    return found[0] if found else None


def _ca(asked: Asked) -> str:
    from cli.login.command import read_ca

    return read_ca(asked.certificate_authority) if asked.certificate_authority else ""


def _check_alone(config: Kubeconfig, wanted: Contexts, target: Path, merging: bool) -> None:
    others = set(config.names("contexts")) - {wanted.context(cluster) for cluster in wanted.clusters}
    if others and not merging:
        shown = ", ".join(sorted(others)[:5])
        raise Failed(f"{target} holds other contexts ({shown}): add to it with --merge, or name another file")


def _merge(config: Kubeconfig, wanted: Contexts, asked: Asked) -> Merged:
    had_none = not config.current
    merged = merge(config, wanted, prune=asked.prune, force=asked.force)
    if asked.use is not None:
        choose(config, wanted, asked.use)
    elif had_none and len(wanted.clusters) == 1:
        config.use(wanted.context(wanted.clusters[0]))
    return merged


def _told(wanted: Contexts, merged: Merged, config: Kubeconfig, target: Path) -> None:
    counts = [f"{len(merged.added)} added", f"{len(merged.renewed)} renewed"]
    counts += [f"{len(merged.removed)} removed"] if merged.removed else []
    _tell(f"{target}: contexts of {wanted.key.server}: {', '.join(counts)}")
    if merged.stale:
        shown = ", ".join(merged.stale[:5]) + (", …" if len(merged.stale) > 5 else "")
        _tell(
            f"{len(merged.stale)} are there still for clusters that you reach no more ({shown}): --prune removes them"
        )
    example = config.current or (wanted.context(wanted.clusters[0]) if wanted.clusters else "")
    if example:
        _tell(f"kubectl --context {example} get pods")


def _tell(text: str) -> None:
    click.echo(text, err=True)
