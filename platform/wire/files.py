"""Files of many lines between an agency's systems and an exchange, and the layout of a query file's line.

A query file has a line a person and a kind: 18 fields of a fixed width with a comma between them, CR LF at the end, as
municipalities really send them (``P640R110_<YYYYMMDDHHmmss>_NNNN.DAT``, observed; no official layout is public). Codes
and numbers stand in it as text. What a field says that the public layouts do not tell is settled here; a nineteenth
field, which a line may leave out, is our own.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from chukan.platform.wire.agency import ProblemBody
from chukan.platform.wire.network import Instant, Message

FILE_LINES_MAX: Final = 10_000
"""Lines of one file (CON-04); a longer one is refused before a line of it is looked at."""
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
PART_LINES: Final = 1_000
"""Lines of a file that are made durable together, as one batch of query lines."""
PROBLEMS_SHOWN_MAX: Final = 100


class Field(NamedTuple):
    """One field: ``width`` in characters (in bytes of a CP932 file)."""

    number: int
    name: str
    width: int
    blank: bool = False
    """Whether it may be empty or all spaces."""


QUERY_FIELDS: Final = (
    Field(1, "番号体系", 2),
    Field(2, "宛名番号", 15, blank=True),
    Field(3, "統合宛名番号", 15, blank=True),
    Field(4, "照会依頼日時", 17),
    Field(5, "情報照会者部署コード", 20),
    Field(6, "情報照会者ユーザーID", 20),
    Field(7, "情報照会者機関コード", 16),
    Field(8, "照会側不開示コード", 1),
    Field(9, "事務コード", 16),
    Field(10, "事務手続コード", 16),
    Field(11, "情報照会者機関コード（委任元）", 16, blank=True),
    Field(12, "情報提供者機関コード（委任元）", 16, blank=True),
    Field(13, "情報提供者機関コード", 16),
    Field(14, "特定個人情報名コード", 16),
    Field(15, "照会条件区分", 1),
    Field(16, "照会年度区分", 1),
    Field(17, "照会開始日付", 8, blank=True),
    Field(18, "照会終了日付", 8, blank=True),
)
CONSENT_FIELD: Final = Field(19, "本人同意区分", 1, blank=True)
"""Of our own: no layout in use tells of the person's consent (地方税関係情報を条例事務で求めるときの同意).

A line may leave it out, and ends with field 18 then, as the lines of every system do today.
"""

FIELD_OF: Final = {
    "/addressee": "/2",
    "/department": "/5",
    "/affair": "/9",
    "/procedure": "/10",
    "/on_behalf_of": "/11",
    "/provider_for": "/12",
    "/provider": "/13",
    "/kind": "/14",
    "/condition/period": "/15",
    "/condition/year": "/16",
    "/condition/start": "/17",
    "/condition/end": "/18",
    "/consent": "/19",
}
"""Where a member of a query line stands in a file's line: a problem of the one is shown at the other."""

Name = Annotated[
    str,
    msgspec.Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$", description="Name of the file: its id at the agency"),
]


class FileParams(Message, frozen=True, kw_only=True):
    """``?name=`` of a file that is sent."""

    name: Name


class ResultParams(Message, frozen=True, kw_only=True):
    """``?after=`` of a result: go on behind this line."""

    after: Annotated[int, msgspec.Meta(ge=0, le=FILE_LINES_MAX, description="Line number after which to go on")] = 0


class QueryFile(Message, frozen=True):
    """A query file and how far its lines are (照会ファイルの進捗)."""

    id: uuid.UUID
    name: str
    charset: str
    state: Literal["open", "accepted"]
    """``open``: it was cut short, send the same file again; ``accepted``: every line is durable or refused."""
    received_at: Instant
    lines: int
    """Lines that were accepted; each is a query line of one of the batches."""
    refused: int
    batches: list[uuid.UUID]
    states: dict[str, int]
    """How many lines stand in which state."""
    outcomes: dict[str, int]
    problems: tuple[ProblemBody, ...] = ()
    """The first hundred refused lines, by number, field and code; all of them stand in the result."""


class CodeFile(Message, frozen=True):
    """A file of addressee numbers and where their links stand (符号取得ファイル)."""

    id: uuid.UUID
    name: str
    charset: str
    state: Literal["open", "accepted"]
    """``open``: it was cut short, send the same file again."""
    received_at: Instant
    lines: int
    refused: int
    statuses: dict[str, int]
    """How many lines have which status of ``CodeStatus``."""
    problems: tuple[ProblemBody, ...] = ()
    """The first hundred refused lines; all of them stand in the result."""
