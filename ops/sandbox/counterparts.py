"""The simulated national agencies as one process: a listener each for the network's pushes, and one admin endpoint.

The admin endpoint is plain loopback HTTP for the demo and for tests: it makes an agency ask, shows what came of it, and
gives its records to reconciliation. No answer's content ever leaves it but on request of the agency's own views.
"""

import uuid
from collections.abc import Sequence
from typing import Final

import msgspec
from aiohttp import web

from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.sandbox.config import CounterpartConfig, CounterpartsConfig, read_private_key, read_public_key
from chukan.ops.sandbox.counterpart import Counterpart, Question, Surroundings
from chukan.ops.sandbox.counterpart_store import View
from chukan.ops.sandbox.listener import Listener
from chukan.ops.sandbox.network_app import admin_boundary, json_reply, number_of, read_body, tell_process
from chukan.ops.sandbox.portal import Portal
from chukan.ops.sandbox.portal_app import add_portal_calls
from chukan.ops.sandbox.registry import RegistryClient
from chukan.platform import tls
from chukan.platform.envelope import Opener, Signer
from chukan.platform.http.network import network_app
from chukan.platform.law import Law
from chukan.platform.peer import NetworkPeer
from chukan.platform.permits import PermitVerifier
from chukan.platform.wire.agency import AnswerContent, Record
from chukan.platform.wire.network import LINES_MAX, Message
from chukan.settings import Network as NetworkSettings

SKEW_S: Final = 2.0


class Questions(Message, frozen=True):
    """``POST /admin/{agency}/ask``."""

    lines: list[Question]


class AskedIds(Message, frozen=True):
    """Ids of lines, in the order of the questions; also the body of ``POST /admin/{agency}/asked``."""

    ids: list[uuid.UUID]


class AskedView(Message, frozen=True):
    """One line that the agency asked."""

    id: uuid.UUID
    state: str
    outcome: str | None = None
    reason: str | None = None
    reference: str | None = None
    content: AnswerContent | None = None


class AskedViews(Message, frozen=True):
    """Lines that the agency asked."""

    lines: list[AskedView]


class RecordPage(Message, frozen=True):
    """``GET /admin/{agency}/records?after=``; ``next`` is None at the end."""

    records: list[Record]
    next: str | None = None


class Counterparts:
    """All simulated national agencies of one configuration."""

    def __init__(self, config: CounterpartsConfig, law: Law, clock: Clock, chance: Chance) -> None:
        self._config = config
        config.state_directory.mkdir(parents=True, exist_ok=True)
        self._registry = RegistryClient(config.registry, clock, chance)
        self._peers: list[NetworkPeer] = []
        self.agencies: dict[str, Counterpart] = {}
        self.portals: dict[str, Portal] = {}
        self._listeners: list[Listener] = []
        self._ports = (law, clock, chance)
        for one in config.counterparts:
            self._add(one)
        self.admin = Listener(self._admin(), config.admin_host, config.admin_port)

    def _add(self, one: CounterpartConfig) -> None:
        law, clock, chance = self._ports
        network_key = read_public_key(self._config.network_verify_key_file)
        keys = {self._config.network_name: network_key}
        signer = Signer(one.name, read_private_key(one.signing_key_file), clock, chance)
        opener = Opener(keys, clock)
        settings = NetworkSettings(
            url=self._config.network_url,
            ca_file=one.tls.ca_file,
            verify_key_file=self._config.network_verify_key_file,
        )
        context = tls.client_context(one.tls.certificate_file, one.tls.key_file, one.tls.ca_file)
        peer = NetworkPeer(settings, signer, opener, context, name=self._config.network_name)
        verifier = PermitVerifier(keys, clock, SKEW_S)
        on = Surroundings(peer, verifier, self._registry, law, clock, chance, self._config.seed)
        counterpart = Counterpart(one, self._config.state_directory, on)
        app = network_app(
            counterpart,
            opener,
            signer,
            network=self._config.network_name,
            acquisition_asks=counterpart.acquisition_asks,
        )
        self._peers.append(peer)
        self.agencies[one.agency] = counterpart
        if one.portal:
            self.portals[one.agency] = Portal(counterpart, law, clock, chance)
        self._listeners.append(Listener(app, one.host, one.port, one.tls))

    async def start(self) -> None:
        """Listen, and begin to work."""
        for listener in (*self._listeners, self.admin):
            await listener.start()
        for counterpart in self.agencies.values():
            await counterpart.start()

    async def stop(self) -> None:
        """Stop at once; nothing that was acknowledged is lost."""
        for listener in (*self._listeners, self.admin):
            await listener.stop()
        for counterpart in self.agencies.values():
            await counterpart.stop()
        for peer in self._peers:
            await peer.close()
        await self._registry.close()

    # ------------------------------------------------------------ administration

    def _agency(self, request: web.Request) -> Counterpart:
        counterpart = self.agencies.get(request.match_info["agency"])
        if counterpart is None:
            raise Problem("unknown_agency")
        return counterpart

    def _admin(self) -> web.Application:
        async def ask(request: web.Request) -> web.Response:
            body = await read_body(request, Questions)
            if len(body.lines) > LINES_MAX:
                raise Problem("too_many_lines", limit=LINES_MAX)
            if request.match_info["agency"] in self.portals:
                raise Problem("function_not_granted")
            return json_reply(AskedIds(ids=await self._agency(request).ask(body.lines)))

        async def asked(request: web.Request) -> web.Response:
            if request.match_info["agency"] in self.portals:
                raise Problem("function_not_granted")
            views = await self._agency(request).views((await read_body(request, AskedIds)).ids)
            return json_reply(_asked_views(views))

        async def records(request: web.Request) -> web.Response:
            after = number_of(request, "after", 0)
            limit = max(1, min(number_of(request, "limit", LINES_MAX), LINES_MAX))
            page = await self._agency(request).records(after, limit)
            following = str(page[-1][0]) if len(page) == limit else None
            return json_reply(RecordPage(records=[record for _, record in page], next=following))

        async def state(_request: web.Request) -> web.Response:
            return json_reply({code: await one.counts() for code, one in self.agencies.items()})

        app = web.Application(middlewares=[admin_boundary()])
        app.router.add_post("/admin/{agency}/ask", ask)
        app.router.add_post("/admin/{agency}/asked", asked)
        app.router.add_get("/admin/{agency}/records", records)
        add_portal_calls(app, self.portals, lambda ids: AskedIds(ids=list(ids)), _asked_views)
        app.router.add_get("/admin/state", state)
        app.router.add_get("/admin/process", tell_process)
        return app


def _asked_views(views: Sequence[View]) -> AskedViews:
    lines = [
        AskedView(
            id=view.id,
            state=view.state,
            outcome=view.outcome,
            reason=view.reason,
            reference=view.reference,
            content=None if view.content is None else msgspec.json.decode(view.content, type=AnswerContent),
        )
        for view in views
    ]
    return AskedViews(lines=lines)
