"""The sandbox portals' calls on the loopback admin endpoint: sign in, ask for own information, see what came back.

Only for made-up people: whoever may call this endpoint may sign in as any of them. A portal must never be told by
``/ask`` what to ask about whom, as other counterparts are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from chukan.errors import Problem
from chukan.ops.sandbox.network_app import json_reply, read_body
from chukan.ops.sandbox.portal import OwnLines, OwnQuestions, Portal, SignedIn, SignIn

if TYPE_CHECKING:
    import uuid

    import msgspec

    from chukan.ops.sandbox.counterpart_store import View


def add_portal_calls(
    app: web.Application,
    portals: Mapping[str, Portal],
    ids_of: Callable[[Sequence[uuid.UUID]], msgspec.Struct],
    views_of: Callable[[Sequence[View]], msgspec.Struct],
) -> None:
    """Add the calls; ``ids_of`` and ``views_of`` make the replies, which look as a counterpart's do."""

    def portal(request: web.Request) -> Portal:
        found = portals.get(request.match_info["agency"])
        if found is None:
            raise Problem("unknown_agency")
        return found

    async def sign_in(request: web.Request) -> web.Response:
        body = await read_body(request, SignIn)
        return json_reply(SignedIn(session=await portal(request).sign_in(body.person)))

    async def own(request: web.Request) -> web.Response:
        body = await read_body(request, OwnQuestions)
        return json_reply(ids_of(await portal(request).ask(body.session, body.lines)))

    async def owned(request: web.Request) -> web.Response:
        body = await read_body(request, OwnLines)
        return json_reply(views_of(await portal(request).answers(body.session, body.ids)))

    app.router.add_post("/admin/{agency}/sign-in", sign_in)
    app.router.add_post("/admin/{agency}/own", own)
    app.router.add_post("/admin/{agency}/owned", owned)
