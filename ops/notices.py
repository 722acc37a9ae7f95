"""Notices to the bodies (お知らせ, OPS-03): published into every cell, archived, and who has read them.

The kill switch and the master data tell the bodies by themselves; an operator writes the others.

Invariant: a notice is told under an id made before, so that a repeat after a failure tells it once; it never goes, and
it is refused where it seems to hold an individual number or a resident code.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Final

from chukan import log
from chukan.clock import to_jst
from chukan.errors import Problem
from chukan.ops.installation import Installation
from chukan.platform.law import Law
from chukan.tenants import notices as board
from chukan.tenants.notices import Archived, Notice
from chukan.tenants.numbers import find_forbidden

TITLE_MAX: Final = 200
TEXT_MAX: Final = 8000

_log = log.get("notices")


async def publish(
    installation: Installation, notice: Notice, *, past_missing: bool = False
) -> tuple[uuid.UUID, tuple[str, ...]]:
    """Publish a notice; return its id, and the cells that were away and could not be told.

    ``Problem`` invalid_field, individual_number_present, resident_code_present; and as a cell says that is away, unless
    ``past_missing`` and another one was told.
    """
    _check(notice)
    given, at = installation.chance.uuid7(), installation.clock.now()
    missing: list[str] = []
    for name in sorted(installation.cells.names):
        try:
            await board.put(installation.cells, name, given, at, notice)
        except Problem as problem:
            _log.error("notice not published", cell=name, code=problem.code)
            missing.append(name)
            if not past_missing or len(missing) == len(installation.cells.names):
                raise
    return given, tuple(missing)


async def of_stop(
    installation: Installation, kind: str | None, procedure: str | None, by: str, *, lifted: bool
) -> tuple[str, ...]:
    """Tell every body that provisions were stopped, or go on again; return the cells that could not be told."""
    what = _what(installation.law, kind, procedure)
    at = to_jst(installation.clock.now()).strftime("%Y-%m-%d %H:%M")
    if lifted:
        notice = Notice("resumed", f"情報提供の再開: {what}", f"{at} に {what} の情報提供を再開しました。", by)
    else:
        text = f"{at} に {what} の情報提供を全国で停止しました。"
        text += "新しい照会には「提供停止」と回答されます。再開は別にお知らせします。"
        notice = Notice("stop", f"情報提供の停止: {what}", text, by)
    return (await publish(installation, notice, past_missing=True))[1]


async def of_master(installation: Installation, version: int, at: dt.datetime | None, by: str) -> None:
    """Tell every body that another version of the master data takes effect."""
    when = to_jst(at or installation.clock.now())
    text = f"配信マスター第 {version} 版を {when:%Y-%m-%d %H:%M}（日本時間）に適用します。"
    await publish(installation, Notice("master", f"配信マスター第 {version} 版の適用", text, by, starts_at=at))


def unread(found: Archived, agencies: Sequence[tuple[int, str]]) -> list[int]:
    """Return the numbers of those agencies (number, body) that a notice is for and that have not read it."""
    meant = (number for number, body in agencies if not found.bodies or body in found.bodies)
    return sorted(set(meant) - set(found.read_by))


def _what(law: Law, kind: str | None, procedure: str | None) -> str:
    if kind is None and procedure is None:
        return "すべての特定個人情報"
    parts = [law.procedures[procedure].label_ja if procedure in law.procedures else procedure] if procedure else []
    parts += [law.kinds[kind].name_ja if kind in law.kinds else kind] if kind else []
    return "・".join(parts)[: TITLE_MAX - 20]


def _check(notice: Notice) -> None:
    if not 1 <= len(notice.title) <= TITLE_MAX or not 1 <= len(notice.text) <= TEXT_MAX:
        raise Problem("invalid_field", pointer="/text", limit=TEXT_MAX)
    if notice.starts_at is not None and notice.ends_at is not None and notice.ends_at <= notice.starts_at:
        raise Problem("invalid_field", pointer="/ends_at")
    for text in (notice.title, notice.text):
        hit = find_forbidden(text)
        if hit is not None:
            raise Problem(f"{hit}_present")
