"""`kulvert login`, `credential` and `logout` as real programs, with a real OIDC provider, and with a real kubectl."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import yaml

from tests.cli.command import PROGRAM
from tests.cli.fakegateway import town
from tests.support.cluster import Cluster
from tests.support.dex import ADA, PUBLIC_CLIENT, Dex
from tests.support.platform import Platform, grant

LIFETIME = 4.0
MAPPED = {"username": "preferred_username", "groups": "groups"}
DEVS = grant("devs", ["alpha"], groups=["oidc:dev"])


class Person:
    """Somebody at a machine, with a home directory and a dex."""

    def __init__(self, home: Path, dex: Dex, server: str = "https://gateway.example:8443") -> None:
        self.home = home
        self.dex = dex
        self.server = server

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    async def start(self, *args: str | Path, program: Path = PROGRAM) -> asyncio.subprocess.Process:
        env = {"HOME": str(self.home), "KULVERT_CACHE_DIR": str(self.cache), "KUBECONFIG": str(self.kubeconfig)}
        env["PATH"] = f"{PROGRAM.parent}:{os.defpath}"
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            program, *args, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )

    async def run(self, *args: str | Path) -> tuple[int, str, str]:
        return await ended(await self.start(*args))

    async def kubectl(self, testbed: Path, *args: str) -> tuple[int, str, str]:
        return await ended(await self.start(*args, program=testbed / "kubectl"))

    async def login(self, *more: str) -> asyncio.subprocess.Process:
        issuer = ("--issuer-url", self.dex.issuer, "--client-id", PUBLIC_CLIENT)
        return await self.start(
            "login", "--server", self.server, *issuer, "--certificate-authority", self.dex.ca_file, *more
        )

    async def credential(self) -> tuple[int, str, str]:
        issuer = ("--issuer-url", self.dex.issuer, "--client-id", PUBLIC_CLIENT)
        return await self.run("credential", "--server", self.server, *issuer)

    async def logged_in(self) -> str:
        """By the browser; what it printed."""
        process = await self.login("--no-browser")
        await open_url(await self.dex.log_in(await said(process, "https://"), ADA))
        code, out, err = await ended(process)
        assert code == 0, err
        return out


async def open_url(url: str) -> str:
    """As the browser that dex has sent back."""
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


async def said(process: asyncio.subprocess.Process, word: str) -> str:
    """The next line on stderr that has a word, from that word on."""
    assert process.stderr
    async with asyncio.timeout(20):
        while line := (await process.stderr.readline()).decode():
            if word in line:
                return word + line.partition(word)[2].strip().partition(" ")[0]
    raise AssertionError(f"it never said {word!r}")


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    async with asyncio.timeout(40):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def claims(text: str) -> dict[str, Any]:
    token = json.loads(text)["status"]["token"]
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def settings(dex: Dex, directory: Path) -> dict[str, Any]:
    """Of a server whose users sign in at dex."""
    issuer = {"url": dex.issuer, "audiences": [PUBLIC_CLIENT], "certificateAuthority": dex.ca_file.read_text()}
    mapped = {name: {"claim": claim, "prefix": "oidc:"} for name, claim in MAPPED.items()}
    document = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"}
    path = directory / "authentication.yaml"
    path.write_text(yaml.safe_dump(document | {"jwt": [{"issuer": issuer, "claimMappings": mapped}]}))
    return {
        "authentication": {"config": str(path)},
        "login": {"issuer": dex.issuer, "clientId": PUBLIC_CLIENT},
    }


@pytest.fixture
async def ada(testbed: Path, tmp_path: Path) -> AsyncIterator[Person]:
    async with Dex(testbed, lifetime=LIFETIME) as dex:
        yield Person(tmp_path, dex)


async def test_by_the_browser_then_silently_across_expiry_then_out(ada: Person) -> None:
    out = await ada.logged_in()
    assert "signed in as ada" in out
    assert {path.stat().st_mode & 0o077 for path in (ada.cache, *ada.cache.iterdir())} == {0}
    seen, until = [], time.time() + 3 * LIFETIME
    while time.time() < until:
        code, out, err = await ada.credential()
        assert (code, err) == (0, "")
        found = claims(out)
        assert found["exp"] > time.time()
        assert (found["iss"], found["preferred_username"], sorted(found["groups"])) == (
            ada.dex.issuer, "ada", ["dev", "ops"]
        )  # fmt: skip
        seen.append(found["exp"])
        await asyncio.sleep(0.2)
    assert 3 <= len(set(seen)) <= 6, "renewed as often as needed, and not at each call"
    code, out, _ = await ada.run("logout", "--server", ada.server)
    assert (code, "signed out" in out) == (0, True)
    assert not list(ada.cache.glob("*.json"))
    code, out, err = await ada.credential()
    assert (code, out) == (1, "")
    assert "run `kulvert login --server" in err


async def test_by_device_code_on_a_machine_without_a_browser(testbed: Path, tmp_path: Path) -> None:
    async with Dex(testbed) as dex:
        ada = Person(tmp_path, dex)
        process = await ada.login()
        await said(process, "https://")
        page = await said(process, "https://")
        assert "user_code=" in page
        await dex.approve_device(page, ADA)
        code, out, err = await ended(process)
        assert code == 0, err
        assert "signed in as ada" in out
        code, out, _ = await ada.credential()
        assert (code, claims(out)["preferred_username"]) == (0, "ada")


async def test_an_issuer_that_has_forgotten_everything_asks_for_a_new_login(ada: Person) -> None:
    await ada.logged_in()
    await ada.dex.halt()
    await ada.dex.start()
    await asyncio.sleep(LIFETIME)
    code, out, err = await ada.credential()
    assert (code, out) == (1, "")
    assert "renews this login no more" in err
    await ada.logged_in()
    assert (await ada.credential())[0] == 0


async def test_a_refresh_token_is_used_once_by_many_programs_at_once(ada: Person) -> None:
    await ada.logged_in()
    await asyncio.sleep(LIFETIME * 0.8)
    results = await asyncio.gather(*(ada.credential() for _ in range(5)))
    assert [(code, err) for code, _, err in results] == [(0, "")] * 5
    await asyncio.sleep(LIFETIME * 0.8)
    assert (await ada.credential())[0] == 0, "dex has not taken the login for stolen"


@pytest.mark.parametrize("option", [(), ("--certificate",), ("--token",)])
async def test_kubectl_takes_the_contexts_and_the_plugin(
    testbed: Path, tmp_path: Path, option: tuple[str, ...]
) -> None:
    with town(tmp_path) as place:
        assert (await asyncio.to_thread(place.log_in)).exit_code == 0
        result = await asyncio.to_thread(place.kulvert, "kubeconfig", "--merge", "--use", "beta", *option)
        assert result.exit_code == 0, result.output
        for more, cluster in (((), "beta"), (("--context", "kulvert/alpha"), "alpha")):
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                testbed / "kubectl", "get", "--raw", "/version", *more, env=place.env(), stdout=pipe, stderr=pipe
            )
            code, out, err = await ended(process)
            assert (code, err) == (0, "")
            found = json.loads(out)
            assert found["cluster"] == cluster
            assert (
                found["user"]
                == {"": "ada", "--certificate": "certificate of ada", "--token": "kulvert-ada"}["".join(option)]
            )


async def test_from_login_to_kubectl_through_the_gateway(
    clusters: tuple[Cluster, Cluster], testbed: Path, tmp_path: Path
) -> None:
    """What the cluster sees is who signed in, by each kind of credential, in the clusters of the grants alone."""
    async with (
        Dex(testbed, lifetime=20.0) as dex,
        Platform(tmp_path / "platform", [DEVS], settings=settings(dex, tmp_path)) as served,
    ):
        for cluster in clusters:
            await served.start_agent(cluster)
        ada = Person(tmp_path, dex, served.url)
        trusted = tmp_path / "trusted.crt"
        trusted.write_bytes(served.ca + dex.ca_file.read_bytes())
        process = await ada.start("login", "--server", served.url, "--no-browser", "--certificate-authority", trusted)
        await open_url(await dex.log_in(await said(process, "https://"), ADA))
        code, _, err = await ended(process)
        assert code == 0, err
        for option in ((), ("--certificate",), ("--token",)):
            code, _, err = await ada.run("kubeconfig", "--merge", "--use", "alpha", *option)
            assert code == 0, err
            assert "kulvert/beta" not in ada.kubeconfig.read_text()
            code, out, err = await ada.kubectl(testbed, "auth", "whoami", "-o", "json")
            assert (code, err) == (0, "")
            seen = json.loads(out)["status"]["userInfo"]
            assert seen["username"] == "oidc:ada"
            assert {"oidc:dev", "oidc:ops"} <= set(seen["groups"])
