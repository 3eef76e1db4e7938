"""Kubectl with the credential plugin for 20 minutes, and (`make soak`) for an hour, fifty times as fast: lives of many
minutes are seconds here, and the keys that sign are replaced on the way. Real kubectl, real gateway, real OIDC
provider; nobody sees an error.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.e2e.test_login import DEVS, Person, ended, open_url, said, settings
from tests.support.cluster import Cluster
from tests.support.dex import Dex
from tests.support.dex import Person as User
from tests.support.platform import Platform

HOUR = 72.0
"""Seconds."""
ID_TOKEN = 12.0
"""Seconds of an ID token's life: ten minutes. The plugin has it made anew by the refresh token, which works once."""
LIFE = 61.0
"""Of what Kulvert issues: about the least that it does. It is renewed once within the hour."""
KINDS: dict[str, tuple[str, ...]] = {"ada": (), "bea": ("--certificate",), "cat": ("--token",)}
"""By an ID token, by Kulvert's certificate, by its token. Each is a person: dex keeps one refresh token for each."""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("seconds", "keys"),
    [pytest.param(HOUR / 3, 2, id="20 minutes"), pytest.param(HOUR, 3, marks=pytest.mark.soak, id="an hour")],
)
async def test_kubectl_goes_on_across_expiry_and_new_keys_without_an_error(
    seconds: float, keys: int, clusters: tuple[Cluster, Cluster], testbed: Path, tmp_path: Path
) -> None:
    fast = {"tokens": {"lifetime": LIFE, "rotateEvery": 20, "publishLead": 3}, "certificates": {"lifetime": LIFE}}
    async with (
        Dex(testbed, people=[user(name) for name in KINDS], lifetime=ID_TOKEN) as dex,
        Platform(tmp_path / "platform", [DEVS], settings=settings(dex, tmp_path) | fast) as served,
    ):
        await served.start_agent(clusters[0])
        people = {name: await signed_in(tmp_path / name, dex, served) for name in KINDS}
        for name, person in people.items():
            code, _, err = await person.run("kubeconfig", "--merge", "--use", "alpha", *KINDS[name])
            assert code == 0, err
        runs = [asked_for(seconds, name, person, testbed) for name, person in people.items()]
        for name, calls in zip(people, await asyncio.gather(*runs), strict=True):
            assert calls > 20 * seconds / HOUR, name
        listed = (await people["cat"].run("signing-key", "list", "--state-dir", served.state))[1]
        assert len(listed.splitlines()) > keys, "the signing key was replaced on the way"
        who = {e["user"]["extra"]["authentication.kubernetes.io/credential-id"][0] for e in served.audit() if e["user"]}
        assert len(who) >= seconds / ID_TOKEN + 2, "many credentials were used, one after the other"


def user(name: str) -> User:
    return User(name, ("dev",))


async def signed_in(home: Path, dex: Dex, served: Platform) -> Person:
    home.mkdir()
    person = Person(home, dex, served.url)
    trusted = home / "trusted.crt"
    trusted.write_bytes(served.ca + dex.ca_file.read_bytes())
    process = await person.start("login", "--server", served.url, "--no-browser", "--certificate-authority", trusted)
    await open_url(await dex.log_in(await said(process, "https://"), user(home.name)))
    code, _, err = await ended(process)
    assert code == 0, err
    return person


async def asked_for(seconds: float, name: str, person: Person, testbed: Path) -> int:
    """How often kubectl was asked; it never failed, and never said a word too many."""
    calls, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        code, _, err = await person.kubectl(testbed, "get", "--raw", "/version")
        assert (code, err) == (0, ""), f"{name}, call {calls}"
        calls += 1
        await asyncio.sleep(0.5)
    return calls
