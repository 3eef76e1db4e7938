"""The client for the user's own cluster, against a real TLS server."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.kubeconfig import load
from cli.failures import Failed
from cli.sample import SampleServer
from cli.up.apiclient import ApiClient


async def test_it_speaks_with_the_kubeconfigs_credential(tmp_path: Path) -> None:
    async with SampleServer() as sample:
        access = load(sample.kubeconfig(tmp_path / "config", user=None))
        async with ApiClient(access) as api:
            assert api.address == sample.url
            assert (await api.send("GET", "/version")).body["gitVersion"].endswith("sample")
            refused = await api.send("GET", "/api/v1/pods")
    assert refused.status == 403
    assert "cannot list resource" in refused.message


async def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    async with SampleServer() as sample:
        access = load(sample.kubeconfig(tmp_path / "config", user=None))
    async with ApiClient(access) as api:
        with pytest.raises(Failed, match=r"the API server at https://127.0.0.1:\d+ cannot be used"):
            await api.send("GET", "/version")
