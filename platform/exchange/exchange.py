"""One exchange server put together: services, inbox, workers, sequencers, and the loops that keep them fed.

``start`` opens the cells, reads the common data, announces answer keys and starts the loops; ``stop`` lets what is in
flight finish within a bound and gives the leases back, so that the other exchange goes on at once.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chukan import log
from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.exchange.acquisition_asks import AcquisitionAsks
from chukan.platform.exchange.code_changes import CodeChangeDesk
from chukan.platform.exchange.code_files import CodeFiles
from chukan.platform.exchange.codes import Codes
from chukan.platform.exchange.common import PolledCommonData
from chukan.platform.exchange.context import Context, Meter
from chukan.platform.exchange.corrections import Corrections
from chukan.platform.exchange.delegations import Delegations
from chukan.platform.exchange.event_streams import EventStreams
from chukan.platform.exchange.evidence import evidence_loops, origin_of
from chukan.platform.exchange.facts import Persons
from chukan.platform.exchange.hinting import Hints
from chukan.platform.exchange.holders import Holders
from chukan.platform.exchange.inbox import Inbox
from chukan.platform.exchange.inquiries import Inquiries
from chukan.platform.exchange.links import BodyLinks
from chukan.platform.exchange.masters import MastersInForce
from chukan.platform.exchange.notices import AgencyNotices
from chukan.platform.exchange.openings import Openings
from chukan.platform.exchange.operations import make_journal, operation_loops
from chukan.platform.exchange.provisions import Provisions
from chukan.platform.exchange.query_files import QueryFiles
from chukan.platform.exchange.refused_bursts import RefusedBursts
from chukan.platform.exchange.reviews import OfficerReviews
from chukan.platform.exchange.telling import telling_loops
from chukan.platform.exchange.waiters import Waiters
from chukan.platform.exchange.workers import InquiryWorker, ProvisionWorker, Worker
from chukan.platform.law import Law
from chukan.platform.law.masters import shipped
from chukan.platform.peer import NetworkPeer
from chukan.platform.permits import PermitVerifier
from chukan.platform.wire.network import AnswerKey
from chukan.replication.primary import Cells
from chukan.settings import Settings
from chukan.tenants import own_flags
from chukan.tenants.directory import AgencyRow, Directory
from chukan.tenants.hints import Hint
from chukan.tenants.keystore import KeyStores
from chukan.tenants.masters import RevokedAt, none_revoked_at
from chukan.tenants.partition import Partition, act_for
from chukan.tenants.sequencer import Sequencer
from chukan.tenants.sets import CellSets, listen
from chukan.tenants.states import Side, shard_of

_log = log.get("exchange")
STOP_S: Final = 10.0
OPEN_S: Final = 60.0
OPEN_AGAIN_S: Final = 0.5
ANNOUNCE_S: Final = 5.0
KEYS_PER_LIST: Final = 500


class Exchange:
    """Everything one exchange process does, behind ports."""

    def __init__(
        self,
        settings: Settings,
        *,
        cells: Cells,
        peer: NetworkPeer,
        keystores: KeyStores,
        law: Law,
        network_key: Ed25519PublicKey,
        directory_key: Ed25519PublicKey,
        clock: Clock,
        chance: Chance,
        meter: Meter,
        revoked: RevokedAt = none_revoked_at,
    ) -> None:
        self.settings = settings
        self.cells = cells
        self.peer = peer
        self.sets = {cell: self.set_functions(cell) for cell in settings.cells}
        self._keystores = keystores
        self.openings = self._make_openings(clock)
        masters = self._make_masters(law, revoked)
        self.common = PolledCommonData(
            self.sets, directory_key, clock, settings.site.environment, self._forget_closed, masters
        )
        self.context = Context(
            settings=settings,
            clock=clock,
            chance=chance,
            masters=masters,
            keystores=keystores,
            sets=self.sets,
            common=self.common,
            openings=self.openings,
            meter=meter,
        )
        self._peer = peer
        self.owner = f"{settings.exchange.name}-{chance.token(4).hex()}"
        verifier = PermitVerifier({settings.network.name: network_key}, clock, skew_s=settings.exchange.permit_skew_s)
        self._waiters = Waiters(clock)
        self._persons = Persons(self.context)
        self.delegations = Delegations(self.context, self.door, peer, self._answered)
        self.corrections = Corrections(self.context, self.door, peer)
        self._provisions = Provisions(self.context, self.delegations.held, self._own_flags)
        self._workers: dict[tuple[str, Side], Worker] = {}
        for cell in settings.cells:
            self._workers[cell, Side.INQUIRER] = InquiryWorker(
                self.context, cell, self.owner, peer, verifier, self._waiters.changed, self._known
            )
            self._workers[cell, Side.PROVIDER] = ProvisionWorker(self.context, cell, self.owner, peer)
        self.inquiries = Inquiries(self.context, self._persons, self._waiters, self._accepted, self.delegations.held)
        self.reviews = OfficerReviews(self.context, self._provisions, self.door, self._asked)
        self.events = EventStreams(self.context, self._waiters, self.door)
        self.files = QueryFiles(self.context, self.inquiries, self.door)
        self.codes = Codes(self.context, self._persons, peer)
        self.code_changes = CodeChangeDesk(self.context, self._persons, self.door, self._answered)
        self.acquisition_asks = AcquisitionAsks(self.context, self.codes, peer, self.door)
        self.code_files = CodeFiles(self.context, self.codes, self.door)
        self.holders = Holders(self.context, self._persons, peer)
        self.links = BodyLinks(self.context)
        self.notices = AgencyNotices(self.context)
        self.journal = make_journal(self.context)
        self.refused_sign_ins = RefusedBursts(self.journal, clock)
        self.inbox = Inbox(self.context, self._provisions, verifier, answered=self._answered, asked=self._asked)
        self._announced: set[tuple[str, str]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._hints = {
            (cell, side): Hints(cell, side, self.sets[cell], self.owner) for cell in settings.cells for side in Side
        }
        self._broken = asyncio.Event()
        self._stopping = False

    @property
    def directory(self) -> Directory:
        """The common data in force."""
        return self.common.directory

    async def _own_flags(self, agency: AgencyRow, lines: Sequence[tuple[bytes, str]]) -> list[own_flags.Flag]:
        """What an agency keeps from the person's own query about (person, kind)."""
        async with self.door(agency) as partition:
            return await own_flags.read(partition, lines)

    def set_functions(self, cell: str) -> CellSets:
        """Door 2 of a cell: its set functions on the broker's login. A simulation puts its own cell here."""
        return CellSets(self.cells.primary(cell).broker)

    def _make_masters(self, law: Law, revoked: RevokedAt) -> MastersInForce:
        """The law that the release brings stands until common data names a version of the master data."""
        folder, roots = self.settings.data.law_directory, self.settings.exchange.tls_ca_file
        return MastersInForce(
            shipped(law, folder),
            folder,
            lambda: x509.load_pem_x509_certificates(roots.read_bytes()),
            self.settings.site.environment,
            revoked,
        )

    def _make_openings(self, clock: Clock) -> Openings:
        """Stand before every set function that changes what agencies have: a closed cell stays as it is."""
        epochs = {cell: settings.restore_epoch for cell, settings in self.settings.cells.items()}
        skew = dt.timedelta(seconds=self.settings.exchange.permit_skew_s)
        openings = Openings(self.sets, epochs, self._leader, clock, skew)
        for cell, sets in self.sets.items():
            sets.guard(partial(openings.admit, cell))
        return openings

    def _leader(self, cell: str) -> tuple[str, int, str] | None:
        leader = self.cells.leader(cell)
        return None if leader is None else leader.who

    @asynccontextmanager
    async def door(self, agency: AgencyRow) -> AsyncIterator[Partition]:
        """Door 1: one transaction that acts for exactly this agency (invariant 1)."""
        async with act_for(self.cells.primary(agency.cell).app, agency.number) as partition:
            yield partition

    def _forget_closed(self, directory: Directory) -> None:
        """A closed agency's keys leave this process's memory; its data stays as it is."""
        for agency in directory.snapshot.agencies:
            if agency.state != "open":
                self._keystores.forget(agency.number)

    # ------------------------------------------------------------ hints

    def _accepted(self, agency: AgencyRow) -> None:
        self._waiters.changed(agency.cell, agency.number, ())
        self._woken(agency, Side.INQUIRER)

    def _asked(self, agency: AgencyRow) -> None:
        self._woken(agency, Side.PROVIDER)

    def _woken(self, agency: AgencyRow, side: Side) -> None:
        """Wake our own worker, or hint the others where the work is theirs (after the commit, DESIGN §5)."""
        shard = shard_of(agency.number)
        if not self._workers[agency.cell, side].wake([shard]):
            self._hints[agency.cell, side].work(shard)

    def _answered(self, agency: AgencyRow, lines: Collection[uuid.UUID] | None = None) -> None:
        """Tell those who wait, here and elsewhere, that these lines are final (None: any of the agency)."""
        self._waiters.changed(agency.cell, agency.number, lines)
        self._hints[agency.cell, Side.INQUIRER].done(shard_of(agency.number))

    def _heard(self, cell: str, side: Side, hint: Hint) -> None:
        if hint.origin == self.owner:
            return
        self._workers[cell, side].wake(hint.work)
        if side is Side.INQUIRER:
            self._waiters.hint(cell, hint.done)

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Begin to work, also when a cell is away; raises Problem ``common_data_stale`` when none had common data."""
        await self.cells.open()
        await self._first_common_data()
        self._spawn("common data", self.common.run())
        self._spawn("openings", self.openings.run())
        self._spawn("answer keys", self._announce())
        self._spawn("refused sign-ins", self.refused_sign_ins.run())
        for name, work in evidence_loops(
            self.context, self.context.meter.evidence_age, self.context.meter.evidence_broken
        ):
            self._spawn(name, work)
        for name, work in telling_loops(self.context, self._peer, self.context.meter.evidence_broken):
            self._spawn(name, work)
        for name, work in operation_loops(self.context, partial(self.context.meter.evidence_age, of="operations")):
            self._spawn(name, work)
        for cell, sets in self.sets.items():
            for side in Side:
                self._spawn(f"worker {cell} {side.name}", self._workers[cell, side].run())
            self._spawn(f"listen {cell}", listen(self.cells, cell, self._heard))
            self._spawn(f"corrections {cell}", self.corrections.run(cell))
            sequencer = Sequencer(sets, self.owner, self.context.clock, self._ages(cell))
            self._spawn(f"sequencer {cell}", sequencer.run())

    async def confirm(self, cell: str) -> None:
        """Return once everything that was read in a cell so far is durable. Raises ``Problem`` as the cell does."""
        await self.sets[cell].confirm()

    def origin(self, name: str) -> str:
        """Return the name of a log by what stands for the code in it."""
        return origin_of(self.context.settings, name)

    async def broken(self) -> None:
        """Return when a loop that should never end has ended: this process does half of its work, and must not stay."""
        await self._broken.wait()

    async def _first_common_data(self) -> None:
        """Wait (bounded) for the first verified common data: a cell may still be starting."""
        deadline = self.context.clock.monotonic() + OPEN_S
        while True:
            await self.common.refresh()
            try:
                _ = self.common.directory
            except Problem:
                if self.context.clock.monotonic() >= deadline:
                    raise
                await asyncio.sleep(OPEN_AGAIN_S)
            else:
                return

    async def stop(self) -> None:
        """Finish what is in flight (bounded), then give the leases back."""
        closing = [self.inquiries.close(), self.inbox.close(), self._persons.close(), self._provisions.close()]
        await asyncio.gather(*closing, return_exceptions=True)
        await self.refused_sign_ins.close()
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=STOP_S)
            for task in left:
                _log.error("a loop did not end", stage=task.get_name())
        # At once, for a cell that is away must not keep the leases of another.
        await asyncio.gather(*(self._release(sets) for sets in self.sets.values()))

    async def _release(self, sets: CellSets) -> None:
        try:
            async with asyncio.timeout(STOP_S):
                await sets.release(self.owner)
        except (Problem, TimeoutError):
            _log.warning("leases not released", owner=self.owner)

    def _ages(self, cell: str) -> Any:  # noqa: ANN401 - the sequencer's callback type is its own
        return lambda seconds: self.context.meter.sequencer_age(cell, seconds)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        _log.critical("a loop ended", stage=task.get_name(), exc_info=task.exception())
        if not self._stopping:
            self._broken.set()

    async def _announce(self) -> None:
        """Tell the network every agency's answer key once per process; try again until it took them."""
        while True:
            todo = [row for row in self.directory.snapshot.agencies if row.state == "open" and not self._known(row)]
            for start in range(0, len(todo), KEYS_PER_LIST):
                await self._announce_some(todo[start : start + KEYS_PER_LIST])
            await asyncio.sleep(ANNOUNCE_S)

    async def _announce_some(self, agencies: list[AgencyRow]) -> None:
        try:
            items = []
            for agency in agencies:
                keys = self.context.keys(agency.number)
                items.append(AnswerKey(id=keys.answer_key_id(), agency=agency.code, public=keys.answer_public()))
            replies = await self.peer.answer_keys([msgspec.json.encode(item) for item in items])
        except Problem as problem:
            _log.warning("answer keys not announced", code=problem.code)
            return
        accepted = {reply.id for reply in replies if reply.status == "accepted"}
        self._announced.update((item.agency, item.id) for item in items if item.id in accepted)

    def _known(self, agency: AgencyRow) -> bool:
        """Whether the network has the answer key that this agency's requests name now."""
        return (agency.code, self.context.keys(agency.number).answer_key_id()) in self._announced
