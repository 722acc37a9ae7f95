"""Set functions of links (団体の回線) for the agency API: a body's own links, and what its officers do to them.

They lie in one cell, which need not be the agency's. Each is a set of one: people do this, one at a time. Callers that
were refused are entered there too, as a set.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from chukan.errors import Problem
from chukan.tenants.link_refusals import Refusal
from chukan.tenants.link_rows import CHANNEL, Kind, Mode, State
from chukan.tenants.sets.common import SetCaller, columns

_DONE: Final = frozenset({"done", "repeat"})
_CODES: Final = {"no_such_link": "not_found", "second_person": "second_officer_required"}
"""What a refusal is called towards a body."""


@dataclass(frozen=True, slots=True)
class BodyLink:
    """A link as its body may know it: no key, and no endpoint."""

    link: str
    mode: Mode
    kind: Kind
    state: State
    generation: int
    valid_from: dt.datetime | None
    valid_until: dt.datetime | None
    suspended_by: Literal["operator", "officer"] | None
    handshakes: dict[str, dt.datetime | None]
    """When the device last shook hands, by centre."""


@dataclass(frozen=True, slots=True)
class OfficersAct:
    """What an officer (its client id) of an agency asks for; ``key`` and ``content`` are digests of 32 bytes."""

    agency: int
    body: str
    link: str
    act: Literal["suspend", "resume", "revoke"]
    officer: str
    reason: str
    key: bytes
    content: bytes


class LinkSets(SetCaller):
    """Set functions that read or change links of one body."""

    async def body_links(self, body: str) -> list[BodyLink]:
        """Return all links of a body, in their order."""
        rows = await self._call("body_links", body)
        return [
            BodyLink(
                link=row["link"],
                mode=row["mode"],
                kind=row["kind"],
                state=row["state"],
                generation=row["generation"],
                valid_from=row["valid_from"],
                valid_until=row["valid_until"],
                suspended_by=row["suspended_by"],
                handshakes=dict(zip(row["centres"], row["handshakes"], strict=True)),
            )
            for row in rows
        ]

    async def body_link_act(self, asked: OfficersAct) -> bool:
        """Carry out an officer's act; False where this request was carried out before.

        Raises ``Problem``: not_found, link_state, link_of_operator, second_officer_required, idempotency_key_reused.
        """
        given = (asked.agency, asked.key, asked.content, asked.body, asked.link, asked.act, asked.officer, asked.reason)
        word = (await self._words("body_link_act", *given))[0]
        if word not in _DONE:
            raise Problem(_CODES.get(word, word))
        return bool(word == "done")

    async def enter_refusals(self, lines: Sequence[Refusal]) -> int:
        """Enter refused callers, ``SET_MAX`` at most, each once; return how many of them stand there now."""
        names = ("id", "at", "until", "exchange", "peer", "body", "tunnel", "code", "times")
        return int((await self._call("enter_refusals", *columns(lines, *names)))[0][0])

    async def hint_links(self) -> None:
        """Tell gateways to look at once: alone, after the commit. A lost hint is made up for by their timers."""
        await self._fetch("SELECT pg_notify($1, '')", CHANNEL)
