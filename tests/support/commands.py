"""`kulvert` on the server's machine, beside a running server."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tests.support.kubectl import Result
from tests.support.platform import PROGRAM


async def kulvert(state: Path, *args: str | Path, timeout: float = 60.0) -> Result:
    """A command that works on a state directory, to its end."""
    argv = [PROGRAM, *args, "--state-dir", state]
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(state.parent)}
    process = await asyncio.create_subprocess_exec(
        *map(str, argv), env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Result(tuple(map(str, args)), process.returncode, out, err)
