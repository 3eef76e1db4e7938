"""`python -m cli.sample`, as somebody would start it."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import yaml


async def test_alone_it_says_where_it_is_and_stops_when_told(tmp_path: Path) -> None:
    config = tmp_path / "config"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.sample", "--kubeconfig", str(config), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        lines = [(await process.stdout.readline()).decode() for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert "not a cluster" in lines[0]
    assert yaml.safe_load(config.read_text())["clusters"][0]["cluster"]["server"] == lines[1].split()[1]
