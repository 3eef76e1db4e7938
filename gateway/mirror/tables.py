"""The server's file before its stores are opened: made ready for the mirror, or for a server that shares nothing."""

from __future__ import annotations

from pathlib import Path

from gateway.granting.store import GrantStore
from gateway.issuing.store import RevocationStore
from gateway.membership.clusterkeys import ClusterKeys
from gateway.membership.stores import Stores
from gateway.mirror import schema
from gateway.serviceaccounts.store import ServiceAccountStore


def make_tables(path: Path) -> None:
    """All tables that are shared, and the mirror's own. What the hub has can come into them before any store reads.

    :raises RegistryError: the file cannot be used, or is of a later version.
    """
    stores = Stores.open(path)
    try:
        database = stores.registry.database
        for store in (ClusterKeys, RevocationStore, GrantStore, ServiceAccountStore):
            store(database)
        database.open(schema.MirrorTables())
    finally:
        stores.close()


def stop_sharing(path: Path) -> None:
    """For a server that is alone from now on: nothing is noted any more. If it joins an installation again, what that
    one has counts. Harmless where nothing was shared.

    :raises RegistryError: the file cannot be used.
    """
    stores = Stores.open(path)
    try:
        database = stores.registry.database
        database.open(schema.MirrorTables())
        with database.writing() as connection:
            schema.remove(connection)
            for table in ("mirror_outbox", "mirror_object", "mirror_journal"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 -- our own
            connection.execute("UPDATE mirror_state SET sharing = '', filling = 0")
    finally:
        stores.close()
