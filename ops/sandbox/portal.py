"""The portal (情報提供等記録開示システム, マイナポータル), simulated: it asks for the signed-in person.

It is a counterpart like any other towards the network: its own certificate, answer key and linkage codes. What is its
own is that it asks for nobody but the person of the session, under the affair of own information alone (自己情報提供),
and shows what came back to that person alone. Signing in stands for the card's certificate (利用者証明用電子証明書).

Invariant: a question names no person: the session does. A line is shown to the session of the person whom it is about,
and to no other. The portal must never ask by another affair than own information's.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import msgspec

from chukan.clock import today_jst
from chukan.errors import Problem
from chukan.ops.sandbox.counterpart import Counterpart, Question
from chukan.platform.wire.network import LINES_MAX, Code16, Condition, Message

if TYPE_CHECKING:
    from chukan.chance import Chance
    from chukan.clock import Clock
    from chukan.ops.sandbox.counterpart_store import View
    from chukan.platform.law import Law

SESSION_VALID: Final = dt.timedelta(minutes=15)
SESSIONS_MAX: Final = 1000
_TOKEN_BYTES: Final = 16
_DEPARTMENT: Final = "本人による照会"


class SignIn(Message, frozen=True):
    """``POST /admin/{agency}/sign-in``: whose card it is, by the portal's own number."""

    person: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class SignedIn(Message, frozen=True):
    """A session of one person."""

    session: str


class OwnQuestion(Message, frozen=True):
    """One thing that the person wants to see of themselves; it names nobody."""

    provider: str
    kind: Code16
    condition: Condition = Condition()


class OwnQuestions(Message, frozen=True):
    """``POST /admin/{agency}/own``."""

    session: str
    lines: Annotated[list[OwnQuestion], msgspec.Meta(min_length=1, max_length=LINES_MAX)]


class OwnLines(Message, frozen=True):
    """``POST /admin/{agency}/owned``: lines of the session's person."""

    session: str
    ids: Annotated[list[uuid.UUID], msgspec.Meta(min_length=1, max_length=LINES_MAX)]


class _Session(NamedTuple):
    person: str
    until: dt.datetime


class Portal:
    """Sessions of persons, and their questions, on one counterpart."""

    def __init__(self, counterpart: Counterpart, law: Law, clock: Clock, chance: Chance) -> None:
        self._counterpart = counterpart
        self._law = law
        self._clock = clock
        self._chance = chance
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    async def sign_in(self, person: str) -> str:
        """Return a session of 15 minutes. Raises ``Problem`` not_found for a person whom the portal does not know."""
        if not self._counterpart.knows(person):
            raise Problem("not_found")
        session = self._chance.token(_TOKEN_BYTES).hex()
        self._sessions[session] = _Session(person, self._clock.now() + SESSION_VALID)
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return session

    async def ask(self, session: str, questions: Sequence[OwnQuestion]) -> list[uuid.UUID]:
        """Ask agencies about the person of a session; returns an id per line once they are durable.

        Raises:
            Problem: session_required; function_not_granted when the law has no own information for this portal today;
                no_code.
        """
        person = self._person(session)
        affair, procedure = self._affair()
        lines = [
            Question(
                person=person,
                provider=question.provider,
                affair=affair,
                procedure=procedure,
                kind=question.kind,
                department=_DEPARTMENT,
                condition=question.condition,
            )
            for question in questions
        ]
        return await self._counterpart.ask(lines)

    async def answers(self, session: str, lines: Sequence[uuid.UUID]) -> list[View]:
        """Return lines of the session's person as they stand. Raises ``Problem`` session_required, not_found."""
        person = self._person(session)
        views = await self._counterpart.views(lines)
        if len(views) != len(lines) or any(view.person != person for view in views):
            # Whether it is another person's or nobody's is not told.
            raise Problem("not_found")
        return views

    def _person(self, session: str) -> str:
        held = self._sessions.get(session)
        if held is None or held.until <= self._clock.now():
            raise Problem("session_required")
        return held.person

    def _affair(self) -> tuple[str, str]:
        today = today_jst(self._clock)
        for row in self._law.own.rows:
            if row.portal == self._counterpart.config.agency and row.covers(today):
                return row.affair, row.procedure
        raise Problem("function_not_granted")
