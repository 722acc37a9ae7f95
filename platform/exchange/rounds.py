"""Going through the agencies of every cell now and then, off the path of any request; each cell goes by itself.

Invariant: a cell that is away holds up no other, and is tried again in the next round.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from chukan.errors import Problem

ROUND_S: Final = 600.0
PAGE_S: Final = 1.0
"""Pause between two pages of agencies."""


async def go_round(
    name: str, cells: Iterable[str], turn: Callable[[str], Awaitable[None]], put_off: Callable[[str, Problem], None]
) -> None:
    """Take a turn in every cell, again and again until cancelled; ``put_off`` hears of a turn that failed."""

    async def rounds(cell: str) -> None:
        while True:
            try:
                await turn(cell)
            except Problem as problem:
                put_off(cell, problem)
            await asyncio.sleep(ROUND_S)

    async with asyncio.TaskGroup() as group:
        for cell in cells:
            group.create_task(rounds(cell), name=f"{name} {cell}")
