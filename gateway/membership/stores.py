"""All that a single server knows of its clusters and their agents: several stores in one SQLite file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.membership.agentcertificates import AgentCertificates
from gateway.membership.enrolments import Enrolments
from gateway.membership.jointokens import JoinTokens
from gateway.membership.registry import SqliteRegistry
from gateway.membership.removals import Removals


@dataclass(frozen=True, slots=True)
class Stores:
    """Opened together, on the registry's database; closed with it."""

    registry: SqliteRegistry
    tokens: JoinTokens
    enrolments: Enrolments
    certificates: AgentCertificates
    removals: Removals

    @classmethod
    def of(cls, registry: SqliteRegistry) -> Stores:
        """On a registry that is open. :raises RegistryError: the file cannot be used."""
        on = registry.database
        return cls(registry, JoinTokens(on), Enrolments(on), AgentCertificates(on), Removals(on))

    @classmethod
    def open(cls, path: Path, *, patience: float = 2.0) -> Stores:
        """As `SqliteRegistry`. :raises RegistryError: the file cannot be used."""
        registry = SqliteRegistry(path, patience=patience)
        try:
            return cls.of(registry)
        except BaseException:
            registry.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self.registry.close()

    def forget(self, name: str) -> None:
        """A cluster with all that belongs to its name, the right to come in first. Harmless where it is gone."""
        self.certificates.remove_of(name)
        self.tokens.remove_of(name)
        self.enrolments.remove_of(name)
        if self.registry.get(name) is not None:
            self.registry.remove(name)

    def tidy(self, now: float, request_lifetime: float, keeps: Callable[[str], bool] = lambda _cluster: False) -> None:
        """Forgets what has expired; of removals those alone that nobody `keeps`."""
        self.tokens.drop_expired(now)
        self.certificates.drop_expired(now)
        self.enrolments.drop_expired(now, request_lifetime)
        self.removals.drop_finished(now, keeps)
