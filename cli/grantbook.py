"""Where `kulvert grant` and `kulvert access` find the grants: a server's state, on its machine, or its management API.

Both give and take objects as the API has them, so that the commands do not know which it is.
"""

from __future__ import annotations

import functools
import getpass
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import click

from cli import statedir
from cli.failures import Failed

if TYPE_CHECKING:
    from auth.grants.sources import GrantSources
    from gateway.granting.store import GrantStore
    from gateway.membership.registry import SqliteRegistry

Object = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


class GrantBook(Protocol):
    """Grants that one may read and change. :raises Failed: from every method; the text says what to do."""

    def list(self) -> list[Object]:
        """All that one may see."""
        ...

    def create(self, document: Object) -> Object:
        """A new one; gives it as it is now."""
        ...

    def replace(self, document: Object) -> Object:
        """Another state of it, if it is still of the document's resourceVersion."""
        ...

    def delete(self, name: str, version: str) -> None:
        """If it is still of this resourceVersion."""
        ...

    def review(self, spec: Object) -> Object:
        """The status of an AccessReview."""
        ...


@dataclass(frozen=True, slots=True)
class LocalGrants:
    """A state directory: whoever may write it is an administrator. What the hub holds is not seen here."""

    store: GrantStore
    sources: GrantSources
    registry: SqliteRegistry

    def list(self) -> list[Object]:
        """See `GrantBook`."""
        from gateway.granting.view import shown

        return [one.object for one in shown(self.sources, self.store)]

    def create(self, document: Object) -> Object:
        """See `GrantBook`."""
        from auth.grants.object import read_object, value_of

        wanted = read_object(value_of(document, "the grant"))
        if any(one.grant.name == wanted.grant.name and one.source == "file" for one in self.sources.listed):
            raise Failed(f"there is a grant {wanted.grant.name!r} in the grants file: change it there")
        self.store.create(wanted.grant, wanted.labels, _oneself(), time.time())
        return self._now(wanted.grant.name)

    def replace(self, document: Object) -> Object:
        """See `GrantBook`."""
        from auth.grants.object import read_object, value_of

        wanted = read_object(value_of(document, "the grant"))
        self.store.replace(int(wanted.version), wanted.grant, wanted.labels, _oneself(), time.time())
        return self._now(wanted.grant.name)

    def delete(self, name: str, version: str) -> None:
        """See `GrantBook`."""
        self.store.delete(name, int(version), _oneself(), time.time())

    def review(self, spec: Object) -> Object:
        """See `GrantBook`."""
        from auth.grants.explain import explain, imagined
        from auth.grants.object import value_of
        from gateway.granting.accessapi import about, read_question
        from gateway.granting.view import explained

        question = read_question(value_of({"spec": spec}, "the question"))
        cluster = self.registry.get(question.cluster)
        labels = cluster.labels if cluster is not None else ()
        who = about(imagined("", ()), question)
        grants, now = self.sources.grants, time.time()
        return explained(explain(self.sources.listed, grants, who, question.cluster, now, question.request, labels))

    def _now(self, name: str) -> Object:
        return next(one for one in self.list() if one["metadata"]["name"] == name)


@dataclass(frozen=True, slots=True)
class Where:
    """What the command line says."""

    state_dir: Path
    server: str
    kubeconfig: Path | None
    profile: str
    certificate_authority: Path | None


def where(command: F) -> F:
    """The options that say where the grants are; they become one argument, `where`."""

    @functools.wraps(command)
    def told(
        state_dir: Path, server: str, kubeconfig: Path | None, profile: str, gateway_ca: Path | None, **more: Any
    ) -> Any:
        return command(where=Where(state_dir, server, kubeconfig, profile, gateway_ca), **more)

    file = click.Path(dir_okay=False, exists=True, path_type=Path)
    options = [
        click.option("--server", default="", show_default=False, metavar="URL", help="A gateway, where you signed in."),
        click.option("--kubeconfig", type=file, help="A gateway, by the current context of this file."),
        click.option("--profile", default="", show_default=False, metavar="NAME", help="Which login, of several."),
        click.option("--certificate-authority", "gateway_ca", type=file, help="PEM: what the gateway is trusted by."),
    ]
    made: Any = statedir.option(told)
    for option in reversed(options):
        made = option(made)
    return cast(F, made)


@contextmanager
def opened(where: Where, grants_file: Path | None = None) -> Iterator[GrantBook]:
    """The grants there. :raises Failed: they cannot be had; the text says what to do."""
    if where.kubeconfig is None and not where.server:
        with local(where.state_dir, grants_file) as book:
            yield book
        return
    from cli.grantremote import by_kubeconfig, by_login
    from cli.login.command import read_ca

    if where.kubeconfig is not None:
        yield by_kubeconfig(where.kubeconfig, where.server)
    else:
        ca = read_ca(where.certificate_authority) if where.certificate_authority else ""
        yield by_login(where.server, where.profile, ca)


@contextmanager
def local(directory: Path, grants_file: Path | None = None) -> Iterator[LocalGrants]:
    """The grants of a state directory, and those of its file, if it has one."""
    from auth.grants.file import GrantsFile
    from auth.grants.sources import GrantSources
    from gateway.granting.store import GrantStore
    from gateway.state import State

    with statedir.registry(directory) as registry:
        store = GrantStore(registry.database)
        sources = GrantSources("file", "store")
        path = grants_file or State(directory).grants
        kept = GrantsFile(path).grants if grants_file or path.exists() else ()

        def take() -> None:
            sources.changed("store", store.grants(), time.time(), store.problem)

        sources.changed("file", kept, time.time())
        take()
        store.subscribe(take)
        yield LocalGrants(store, sources, registry)


def _oneself() -> str:
    """For the store's record of who changed what. Whoever has no name is somebody."""
    from gateway.granting.store import ON_THE_MACHINE

    try:
        return getpass.getuser() + ON_THE_MACHINE
    except (KeyError, OSError):
        return "somebody" + ON_THE_MACHINE
