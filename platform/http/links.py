"""Links (団体の回線): a body sees its own, and its officers stop them, or let them in again together.

Systems may look. To suspend and to revoke takes one officer; to resume takes another one than who suspended, because it
lets traffic in. What an operator suspended only operators resume. A link of another body is not found.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.exchange.services import OfficersAct
from chukan.platform.http import forbidden
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.wire.links import LinkAct, LinkEnd, LinkView, LinkViews
from chukan.tenants.link_plan import parse_link

_OFFICER: Final = Right(("order",))
_EITHER: Final = Right(("order", "queries"))


async def listing(call: Call) -> Reply:
    """List the links of the agency's body."""
    return Reply(await call.services.exchange.links.list(call.agency))


def _acts(act: OfficersAct) -> Callable[[Call], Awaitable[Reply]]:
    async def carry_out(call: Call) -> Reply:
        body = call.body_as(LinkAct)
        forbidden.refuse([("reason", body.reason)])
        key = call.need_key()
        view = await call.services.exchange.links.act(
            call.agency, call.client, _link(call), act, body.reason, key=key.key, content=key.content
        )
        return Reply(view)

    return carry_out


def _link(call: Call) -> str:
    """Return the link of the path. Raises ``Problem`` not_found where it is none of the body's."""
    text = call.request.match_info["link"]
    try:
        link = parse_link(text)
    except ValueError:
        raise Problem("not_found") from None
    if link.body != call.agency.body:
        raise Problem("not_found")
    return text


_PROBLEMS: Final = (
    "not_found",
    "link_state",
    "idempotency_key_reused",
    "officer_required",
    "individual_number_present",
    "resident_code_present",
    "cell_restored",
)
_REASON: Final = Example("With a reason.", LinkAct(reason="装置の入替えのため"))
_SHOWN: Final = LinkView(
    link="131016-1",
    kind="wireguard",
    mode="pair",
    state="active",
    generation=12,
    addresses=["10.76.203.65/32", "fd6b:7573:332d:100::/56"],
    ends=[LinkEnd(centre="east"), LinkEnd(centre="west")],
)


def _act(act: OfficersAct, name: str, summary: str, *problems: str) -> Route:
    return Route(
        "POST",
        f"/links/{{link}}/{act}",
        name,
        summary,
        _OFFICER,
        _acts(act),
        Priority.COUNTER,
        body=LinkAct,
        reply=LinkView,
        key=True,
        problems=(*_PROBLEMS, *problems),
        examples=(_REASON, Example("Without one.", LinkAct())),
    )


ROUTES: Final = (
    Route(
        "GET",
        "/links",
        "listLinks",
        "回線の状態。State of the body's links.",
        _EITHER,
        listing,
        Priority.COUNTER,
        reply=LinkViews,
        problems=("officer_required",),
        shows=(Example("One link, which has not been used yet.", LinkViews(links=[_SHOWN])),),
    ),
    _act("suspend", "suspendLink", "回線の一時停止。Let nothing through a link, at once."),
    _act(
        "resume",
        "resumeLink",
        "回線の再開(別の職員)。Let a suspended link through again; another officer than who suspended it.",
        "second_officer_required",
        "link_of_operator",
    ),
    _act("revoke", "revokeLink", "回線の廃止。End a link for ever, at once; its name and keys are never used again."),
)
