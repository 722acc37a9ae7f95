"""Health as a body's device sees it through its link (団体の回線): whether to come here, and nothing else.

A device agent asks ``/readyz`` inside the tunnel and goes to the other centre at a 503. Everybody behind a link can ask
it without a certificate, so it tells the centre and a yes or no: no cell, no fault by name, no count, no metrics.
"""

from aiohttp import web

from chukan.platform.http import bodies
from chukan.platform.http.health import Health, answer_json, as_problems


def link_application(health: Health, centre: str) -> web.Application:
    """Return the application of the health listener at the service addresses: plain HTTP, GET only."""

    async def readyz(request: web.Request) -> web.Response:
        ready = health.ready_for(request.query.get("cell"))
        return answer_json({"ready": ready, "centre": centre}, 200 if ready else 503)

    async def healthz(_request: web.Request) -> web.Response:
        return answer_json({"ok": True}, 200)

    app = web.Application(middlewares=[as_problems])
    app.router.add_get("/readyz", readyz, expect_handler=bodies.expect_later)
    app.router.add_get("/healthz", healthz, expect_handler=bodies.expect_later)
    return app
