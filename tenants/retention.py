"""How long things are kept (保存期間), and until when: the rules as data, and the instants that follow from a clock.

Provision records (情報提供等記録) seven years (番号法施行令30条), by whole months of Japan: a month's records go once
every one of them is older than seven years. What the database's own clock would keep is kept whatever is asked for
(SQL 0076), and the log keeps its leaves for ever. The other classes by days, each from what is said of it.

Pure. Invariant: what is deleted and what the report and the documents say is deleted come from the same numbers.
"""

import datetime as dt
from typing import Final, NamedTuple

KEPT_YEARS: Final = 7
KEYS_DAYS: Final = 8
"""Keys against repeats, and sent bytes: seven days and one more (DESIGN §5)."""
FILES_DAYS: Final = KEYS_DAYS + 60
FACTS_DAYS: Final = 28
"""Facts of a request to acquire a code (符号取得の依頼)."""


class Kept(NamedTuple):
    """One class of what is kept: its name, and what the documents say of it."""

    name: str
    what_ja: str
    what_en: str
    since_ja: str
    since_en: str
    period_ja: str
    """``{results}`` stands for the setting's days."""
    period_en: str
    by: str
    """What deletes it; nothing for what stays."""


CLASSES: Final = (
    Kept(
        "results",
        "照会結果の内容(答)",
        "contents of answers",
        "最終状態となった時",
        "the line's final state",
        "{results}日(`exchange.result_keep_days`)",
        "{results} days (`exchange.result_keep_days`)",
        "`purge_results`",
    ),
    Kept(
        "records",
        "情報提供等記録",
        "provision records",
        "記録された月",
        "the month of the record",
        "7年(番号法施行令30条)、月単位",
        "7 years, by whole months (施行令30条)",
        "`expire_records`",
    ),
    Kept(
        "lines",
        "照会・提供・許可・経過",
        "queries, provisions, permits and their events",
        "受け付けた時",
        "their acceptance",
        "7年、その記録が消えた後",
        "7 years, and after their record has gone",
        "`expire_records`",
    ),
    Kept(
        "messages",
        "電文の証跡(署名と要約値)",
        "message evidence (signatures and digests)",
        "受け付けた時",
        "their acceptance",
        "7年、その記録が消えた後",
        "7 years, and after their record has gone",
        "`expire_messages`",
    ),
    Kept(
        "keys",
        "受付鍵・使用済み許可の照合値",
        "keys against repeats, digests of used permits",
        "受け付けた時、許可の期限",
        "the message, the permit's end",
        f"{KEYS_DAYS}日",
        f"{KEYS_DAYS} days",
        "`forget`",
    ),
    Kept(
        "files",
        "送られたファイルの行ごとの状態",
        "the state of files that were sent",
        "送られた時",
        "the file's arrival",
        f"{FILES_DAYS}日",
        f"{FILES_DAYS} days",
        "`forget`",
    ),
    Kept(
        "facts",
        "符号取得の依頼に封じられた4情報",
        "sealed facts of requests to acquire a code",
        "届いた時",
        "their arrival",
        f"{FACTS_DAYS}日、処理の有無によらない",
        f"{FACTS_DAYS} days, whatever became of them",
        "`purge_acquisition_asks`",
    ),
    Kept(
        "sessions",
        "職員のセッション",
        "officers' sessions",
        "セッションの終わり",
        "the session's end",
        "次の巡回(約10分)まで",
        "until the next round (about ten minutes)",
        "`purge_sessions`",
    ),
    Kept(
        "notices",
        "お知らせの既読",
        "receipts of notices",
        "-",
        "-",
        "消去しない",
        "stays",
        "",
    ),
    Kept(
        "operations",
        "操作記録",
        "operations logs",
        "-",
        "-",
        "消去しない",
        "stays",
        "",
    ),
)
STAYING: Final = frozenset(kept.name for kept in CLASSES if not kept.by)


class Limits(NamedTuple):
    """What is over: everything of before these instants (records: of months before a day), in the order of SQL 0090."""

    results: dt.datetime
    keys: dt.datetime
    files: dt.datetime
    facts: dt.datetime
    now: dt.datetime
    records: dt.date


def kept_from(today: dt.date) -> dt.date:
    """Return the first day of the oldest month whose records are kept on a day in Japan."""
    return today.replace(year=today.year - KEPT_YEARS, day=1)


def limits_of(now: dt.datetime, today: dt.date, result_keep_days: int) -> Limits:
    """Return what is over at an instant; ``today`` is its day in Japan."""

    def before(days: int) -> dt.datetime:
        return now - dt.timedelta(days=days)

    return Limits(
        before(result_keep_days), before(KEYS_DAYS), before(FILES_DAYS), before(FACTS_DAYS), now, kept_from(today)
    )
