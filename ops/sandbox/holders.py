"""The network's word on who holds a linkage code of a person (通知先の通知, 命令85号40条3項・4項).

A job for ``Store`` that reads and keeps nothing: asked again, it answers by the state of then. It names a provider only
where the list in force lets the inquirer ask it for this affair, procedure and kind, and where the assessments of both
are published; to everybody else it would tell where a person is known.
"""

import datetime as dt
import sqlite3
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from chukan.clock import today_jst
from chukan.ops.sandbox.core import Surroundings
from chukan.ops.sandbox.register import PIA_UNPUBLISHED, Register
from chukan.platform.law import Verdict
from chukan.platform.wire.network import HOLDERS_MAX, HolderReply, HolderRequest

KNOWN_MAX: Final = 10_000
"""Agencies of one person that are looked through at most."""


class Holders:
    """Answers look-ups; what stands against a permit stands against a look-up as well."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._on = surroundings

    def look_up(self, connection: sqlite3.Connection, route: str, requests: Sequence[HolderRequest]) -> list[bytes]:
        """Return a ``HolderReply``'s bytes for each request, in their order."""
        register = Register(connection)
        now, today = self._on.clock.now(), today_jst(self._on.clock)
        return [msgspec.json.encode(self._reply(connection, register, route, each, now, today)) for each in requests]

    def _reply(
        self,
        connection: sqlite3.Connection,
        register: Register,
        route: str,
        request: HolderRequest,
        now: dt.datetime,
        today: dt.date,
    ) -> HolderReply:
        def no(outcome: Literal["not_permitted", "stopped", "bad_request"], reason: str) -> HolderReply:
            return HolderReply(id=request.id, outcome=outcome, answered_at=now, reason=reason)

        inquirer = register.agency(request.inquirer)
        if inquirer is None or not register.is_at(request.inquirer, route):
            return no("bad_request", "not_your_agency")
        stopped = register.stop_reason(request.kind, request.procedure)
        if stopped is not None:
            return no("stopped", stopped)
        if not inquirer.pia:
            return no("not_permitted", PIA_UNPUBLISHED)
        row = connection.execute(
            "SELECT management FROM codes WHERE agency = ? AND code = ?", (request.inquirer, request.code)
        ).fetchone()
        if row is None:
            return no("bad_request", "unknown_code")
        known = connection.execute(
            "SELECT agency FROM codes WHERE management = ? AND agency <> ? ORDER BY agency LIMIT ?",
            (row[0], request.inquirer, KNOWN_MAX),
        ).fetchall()
        providers = [agency for (agency,) in known if self._eligible(register, request, agency, today)]
        return HolderReply(id=request.id, outcome="answered", answered_at=now, providers=providers[:HOLDERS_MAX])

    def _eligible(self, register: Register, request: HolderRequest, provider: str, today: dt.date) -> bool:
        agency = register.agency(provider)
        if agency is None or not agency.pia:
            return False
        decision = self._on.law.decide(
            inquirer=request.inquirer,
            provider=provider,
            affair=request.affair,
            procedure=request.procedure,
            kind=request.kind,
            day=today,
        )
        return decision.verdict is Verdict.YES
