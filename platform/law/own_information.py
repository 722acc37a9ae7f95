"""The person's own query (自己情報提供): what the portal may ask about whoever has signed in there, as data with dates.

The portal (情報提供等記録開示システム, マイナポータル; 番号法附則6条3項・4項) asks for no agency but for the person
alone. So this is a class of its own: its affairs stand in no matching list, nobody but a portal may ask under them, and
a portal may ask under nothing else and is itself asked by nobody. Its items are all that the layouts in force have.

Invariant: what stands here opens nothing for an agency, and nothing of the list for a portal. This module must never
be a way around a delegation or a non-disclosure: the person is always told that the portal asked (``refusal``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from chukan.platform.law.decision import Decision, Step, Verdict
from chukan.platform.law.tables import Kind, ListInForce, Procedure, Source

_ANY: Final = "*"
FILE: Final = "own_information.csv"


@dataclass(frozen=True, slots=True)
class OwnAffair:
    """One affair and procedure under which one portal asks."""

    affair: str
    procedure: str
    portal: str
    kinds: frozenset[str]
    """Empty: all kinds."""
    label_ja: str
    law: str
    valid_from: date
    valid_until: date | None
    illustrative: bool

    def covers(self, day: date) -> bool:
        """Tell whether it is in force on a day."""
        return self.valid_from <= day and (self.valid_until is None or day <= self.valid_until)


class OwnInformation:
    """All affairs of own information, by code."""

    def __init__(self, rows: Collection[OwnAffair]) -> None:
        self.rows = tuple(rows)
        self.portals = frozenset(row.portal for row in rows)
        self._affairs = frozenset(row.affair for row in rows)
        self._procedures = frozenset(row.procedure for row in rows)

    def __contains__(self, affair: str) -> bool:
        return affair in self._affairs

    def has_procedure(self, procedure: str) -> bool:
        """Tell whether a procedure is of this class, on whatever day."""
        return procedure in self._procedures

    def concerns(self, inquirer: str, provider: str, affair: str) -> bool:
        """Tell whether a question is judged here: by its affair, or because a portal takes part."""
        return affair in self._affairs or not self.portals.isdisjoint((inquirer, provider))

    def refusal(self, affair: str, *, on_behalf_of: str | None, withheld: bool) -> str | None:
        """Return why a request or a permit under an affair may not be, or None.

        A person's own query is under nobody's delegation, and its record is not kept from the person (不開示).
        """
        if affair not in self._affairs:
            return None
        if on_behalf_of is not None:
            return "own_information_delegated"
        return "own_information_withheld" if withheld else None

    def judge(  # noqa: PLR0911 - one return for each reason
        self,
        listed: ListInForce,
        who: tuple[str, str],
        asked: tuple[str, str, str],
        day: date,
        kinds: Mapping[str, Kind],
    ) -> Decision:
        """Return the judgement of a question that concerns this class.

        Args:
            listed: the list in force on the day; the judgement names it.
            who: 16-digit codes of inquirer and provider.
            asked: affair, procedure, kind.
            day: JST.
            kinds: all kinds by their codes.
        """
        (inquirer, provider), (affair, procedure, kind) = who, asked
        if provider in self.portals:
            return _end(listed, "portal_is_not_asked", "情報提供等記録開示システムは、情報提供者にならない")
        if affair not in self._affairs:
            return _end(listed, "portal_asks_own_only", "情報提供等記録開示システムは、自己情報のほかは照会できない")
        rows = [row for row in self.rows if (row.affair, row.procedure) == (affair, procedure)]
        if not rows:
            return _end(listed, "procedure_not_of_affair", "事務手続が、この事務のものではない")
        mine = [row for row in rows if row.portal == inquirer]
        if not mine:
            return _end(listed, "not_a_portal", "照会者は、登録された情報提供等記録開示システムではない")
        row = next((each for each in mine if each.covers(day)), None)
        if row is None:
            return _end(listed, "affair_not_in_force", "この日には、この事務による自己情報の提供がない")
        if kind not in kinds:
            return _end(listed, "unknown_kind", "特定個人情報の種類が登録されていない", Verdict.UNKNOWN)
        if row.kinds and kind not in row.kinds:
            return _end(listed, "kind_not_in_entry", "この種類は、自己情報として提供されない")
        return replace(_end(listed, "own_information", f"「{row.label_ja}」", Verdict.YES), law=row.law)


def _end(listed: ListInForce, reason: str, text_ja: str, verdict: Verdict = Verdict.NO) -> Decision:
    step = Step("own_information", verdict, text_ja)
    return Decision(verdict, reason, list_number=listed.number, list_name=listed.name, law=listed.law, steps=(step,))


def read_own(
    source: Source, *, kinds: Mapping[str, Kind], procedures: Mapping[str, Procedure], agencies: Collection[str]
) -> OwnInformation:
    """Return the affairs of own information; none where the directory is of a release that had no such file.

    Args:
        source: where the files are.
        kinds: all kinds by their codes.
        procedures: the procedures of the list and beside it, by their codes.
        agencies: codes of all agencies.

    Raises:
        ValueError: the rows contradict the other files or one another.
    """
    rows = [_row(row) for row in source.rows(FILE, missing_ok=True)]
    taken = {one.affair for one in procedures.values()}
    belongs: dict[str, str] = {}
    for row in rows:
        if row.affair in taken or row.procedure in procedures:
            raise ValueError(f"{FILE}: {row.affair} is an affair or a procedure of the list or beside it")
        if row.portal not in agencies:
            raise ValueError(f"{FILE}: {row.affair} names a portal that does not exist")
        if row.kinds - kinds.keys():
            raise ValueError(f"{FILE}: {row.affair} names kinds that do not exist")
        if belongs.setdefault(row.procedure, row.affair) != row.affair:
            raise ValueError(f"{FILE}: {row.procedure} is of two affairs")
        for other in rows:
            same = other is not row and (other.procedure, other.portal) == (row.procedure, row.portal)
            if same and (other.covers(row.valid_from) or row.covers(other.valid_from)):
                raise ValueError(f"{FILE}: {row.procedure} stands twice on one day")
    return OwnInformation(rows)


def _row(row: Mapping[str, str]) -> OwnAffair:
    return OwnAffair(
        affair=row["affair"],
        procedure=row["procedure"],
        portal=row["portal"],
        kinds=frozenset() if row["kinds"] == _ANY else frozenset(row["kinds"].split()),
        label_ja=row["label_ja"],
        law=row["law"],
        valid_from=date.fromisoformat(row["valid_from"]),
        valid_until=date.fromisoformat(row["valid_until"]) if row["valid_until"] else None,
        illustrative=row["illustrative"] == "yes",
    )
