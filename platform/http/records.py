"""Provision records (情報提供等記録, 番号法23条): the agency's own view, in the order of its log or for one person."""

from typing import Final

import msgspec

from chukan.platform.admission import Priority
from chukan.platform.http import forbidden
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.http.params import PageParams, RecordSearch
from chukan.platform.http.sessions import affairs_of
from chukan.platform.wire.agency import Records

_RIGHT: Final = Right(("records",))


async def page(call: Call) -> Reply:
    """Return a page in the order of the log."""
    params = call.params_as(PageParams)
    return Reply(_of_affairs(call, await call.services.desks.records.page(call.agency, params.after, params.limit)))


async def search(call: Call) -> Reply:
    """Return the records of one person, for disclosure to that person (REC-03)."""
    body = call.body_as(RecordSearch)
    forbidden.refuse([("addressee", body.addressee)])
    return Reply(_of_affairs(call, await call.services.desks.records.search(call.agency, body)))


def _of_affairs(call: Call, found: Records) -> Records:
    """Leave out the records of affairs that are not the officer's; a page may be empty and have a next one."""
    allowed = affairs_of(call)
    return msgspec.structs.replace(found, records=[each for each in found.records if allowed.allows(each.affair)])


ROUTES: Final = (
    Route(
        "GET",
        "/records",
        "listRecords",
        "情報提供等記録の一覧。List provision records in the order of the log.",
        _RIGHT,
        page,
        Priority.COUNTER,
        by_affair=True,
        params=PageParams,
        reply=Records,
    ),
    Route(
        "POST",
        "/records/search",
        "searchRecords",
        "本人の情報提供等記録。Find the records of one person.",
        _RIGHT,
        search,
        Priority.COUNTER,
        by_affair=True,
        body=RecordSearch,
        reply=Records,
        problems=("individual_number_present", "resident_code_present"),
        examples=(Example("One person.", RecordSearch(addressee="A1")),),
    ),
)
