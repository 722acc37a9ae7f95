"""Calls that a later stage brings: they are documented, every caller who may use them gets ``not_in_service``.

Rights, path and agency are checked as for any call; a body is not read, for nothing is done with it. A row leaves this
table for a module of its own on the day the call does something.
"""

from typing import Final

from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Reply, Route, Work


async def refuse(_call: Call) -> Reply:
    """Say that this installation does not offer it."""
    raise Problem("not_in_service")


_JSON: Final = ("application/json",)
_FORM: Final = "Not read: this installation does not offer the call yet."
_CODES, _RECORDS, _QUERIES = Right(("codes",)), Right(("records",)), Right(("queries",))


def _later(method: str, path: str, name: str, summary: str, right: Right) -> Route:
    posts = method == "POST"
    return Route(
        method,
        path,
        name,
        f"{summary} Not in service yet.",
        right,
        refuse,
        Priority.COUNTER,
        statuses=(),
        work=Work.OWN,
        streams=_JSON if posts else (),
        stream_form=_FORM if posts else "",
        problems=("not_in_service",),
    )


ROUTES: Final = (
    _later("POST", "/codes/relink", "relinkCode", "符号の紐付け変更。Link a code to another addressee number.", _CODES),
    _later("POST", "/codes/merge", "mergeCodes", "宛名番号の統合。Merge two addressee numbers of one person.", _CODES),
    _later("POST", "/codes/confirm", "confirmLink", "紐付けの確認。Confirm a suspended link.", _CODES),
    _later("GET", "/acquisition-requests", "listAcquisitionRequests", "符号取得の依頼。Requests to acquire.", _CODES),
    _later("POST", "/records/{record}/correct", "correctRecord", "訂正の通知。Notify a correction (31条).", _RECORDS),
    _later("POST", "/resident/records", "residentRecords", "本人開示。A resident's own records with proofs.", _RECORDS),
    _later("GET", "/delegations", "listDelegations", "委任の一覧。List delegations.", _QUERIES),
    _later("POST", "/delegations", "postDelegation", "委任の登録。Register a delegation.", _QUERIES),
    _later("GET", "/notices", "listNotices", "お知らせ。Notices of the operator.", _QUERIES),
    _later("GET", "/calendar", "getCalendar", "運用時間。Service hours.", _QUERIES),
)
