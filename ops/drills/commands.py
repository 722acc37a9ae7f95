"""An operator's command in a drill: run as a process of its own, for a drill is to try what an operator has.

Every command that is run this way may be interrupted anywhere; the same command, or a later one, finishes it.
"""

import asyncio
import os
import sys
from collections.abc import Sequence


async def run_command(words: Sequence[str], timeout_s: float) -> bytes:
    """Run ``chukan`` with these words; return what it printed. It does not outlive the call; ``TimeoutError``."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chukan.ops.cli", *words, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=os.environ, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said
