"""What each line of a list is judged on (照会の可否): law, directory, link and delegation of this moment, as a set.

The flow decides; here it is told the facts. What it was told about link and delegation goes along with its word, for
the commit that makes the line durable looks at both once more. It must never keep anything from one call to the next.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from chukan.clock import today_jst
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.facts import Persons, provider_known
from chukan.platform.flows import inquiry as flow
from chukan.platform.wire.agency import QueryLine
from chukan.tenants.delegations import Half, acting_half
from chukan.tenants.directory import AgencyRow
from chukan.tenants.rows import CodeRow

Held = Callable[[AgencyRow], Awaitable[list[Half]]]


class Judged(NamedTuple):
    """What the flow says of a line, and what it was told."""

    verdict: flow.Refused | flow.Step
    link: CodeRow | None
    half: Half | None
    """The agency's own half under which it would ask."""


async def nothing_held(_agency: AgencyRow) -> list[Half]:
    """Hold no delegation: what a set-up without any has."""
    return []


class Judging:
    """Judges lines of one agency; ``held`` returns its delegations, asked only where a line rests on one."""

    def __init__(self, context: Context, persons: Persons, held: Held) -> None:
        self._context = context
        self._persons = persons
        self._held = held

    async def judge(self, agency: AgencyRow, lines: Sequence[QueryLine], now: dt.datetime) -> list[Judged]:
        """Judge each line by the law, the directory, the person's link and the agency's delegations of now."""
        context = self._context
        links = await self._persons.links(agency, [line.addressee for line in lines])
        directory = context.common.directory
        today = today_jst(context.clock)
        halves = await self._held(agency) if any(line.on_behalf_of for line in lines) else []
        judged: list[Judged] = []
        for line, link in zip(lines, links, strict=True):
            half = None
            if line.on_behalf_of is not None:
                half = acting_half(halves, "inquirer", line.on_behalf_of, line.affair, today)
            facts = flow.Facts(
                inquirer=agency.code,
                today=today,
                now=now,
                provider_known=provider_known(directory, line.provider, context.law),
                stopped=directory.is_stopped(line.kind, line.procedure),
                link=link.status if link else None,
                delegated=half is not None,
            )
            judged.append(Judged(flow.judge(line, context.law, facts), link, half))
        return judged
