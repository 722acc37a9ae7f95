"""The directory: common data that every exchange reads locally (共通データ) — agencies, clients and the kill switch.

It is one numbered snapshot, signed as a whole, written in one cell and copied to every cell. Here is its form, its
signature, and ``Directory``, the look-ups on it. The builders below derive the next snapshot from one; they are pure,
and the command line signs and stores what they return.

Invariant: a directory that could name two agencies by one number or code, or give a system rights at an agency of
another body, cannot be constructed; deny by default. It must never hold personal data or a secret.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from chukan.errors import Problem
from chukan.settings import Environment

AgencyCode = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{16}$")]
BodyCode = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{6}$")]
Number = Annotated[int, msgspec.Meta(ge=1, le=99_999)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
ClientId = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$")]
CellName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Code16 = Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9]{16}$")]
Instant = Annotated[dt.datetime, msgspec.Meta(tz=True)]
Function = Literal[
    "copies", "codes", "queries", "records", "residents", "reviews.prepare", "reviews.approve", "holds", "order"
]

FUNCTIONS: Final[frozenset[str]] = frozenset(Function.__args__)  # type: ignore[attr-defined]
"""What a client may be granted."""

OFFICER_FUNCTIONS: Final = frozenset({"reviews.prepare", "reviews.approve", "order"})
"""Acts that need an officer's own credential (invariant 8)."""

_SIGNED_PREFIX: Final = b"chukan directory snapshot\0"
_KEY_ID_DIGITS: Final = 16


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the rows of a snapshot."""


class AgencyRow(_Row, frozen=True, kw_only=True):
    """An agency (機関), the tenant. ``number`` names its schema and is never given again."""

    number: Number
    code: AgencyCode
    body: BodyCode
    name: Name
    cell: CellName
    generation: Annotated[int, msgspec.Meta(ge=1)]
    """Raised when the agency moves to another cell; set calls carry it."""
    state: Literal["open", "closed"] = "open"


class ClientRow(_Row, frozen=True, kw_only=True):
    """A registered system or officer (職員) of one body; its certificate names ``urn:chukan:client:<id>``."""

    id: ClientId
    body: BodyCode
    kind: Literal["system", "officer"]
    name: Name
    agencies: list[AgencyCode]
    functions: list[Function]


class Stop(_Row, frozen=True, kw_only=True):
    """A kill switch (提供停止): stops a kind, a procedure, or a kind under a procedure; both None stop everything."""

    kind: Code16 | None = None
    procedure: Code16 | None = None


class Snapshot(_Row, frozen=True, kw_only=True, omit_defaults=True):
    """All common data at one number. ``law_number`` names the lists of the law (照合リスト) that go with it.

    Only a sandbox's snapshot says whose it is: what says nothing is production's.
    """

    number: Annotated[int, msgspec.Meta(ge=1)]
    made_at: Instant
    agencies: list[AgencyRow]
    clients: list[ClientRow]
    stopped: list[Stop]
    law_number: int | str
    environment: Environment = "production"


class SignedSnapshot(msgspec.Struct, frozen=True):
    """A snapshot as it travels and rests: canonical bytes, Ed25519 signature (64 bytes), id of the signing key."""

    body: bytes
    signature: bytes
    key: str


class Directory:
    """Look-ups on one snapshot, each in constant time."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Index a snapshot; ``ValueError`` when it contradicts itself (see the module's invariant)."""
        self.snapshot = snapshot
        self.number = snapshot.number
        self._by_number = {row.number: row for row in snapshot.agencies}
        self._by_code = {row.code: row for row in snapshot.agencies}
        self._clients = {row.id: row for row in snapshot.clients}
        self._stopped = frozenset((stop.kind, stop.procedure) for stop in snapshot.stopped)
        if not len(self._by_number) == len(self._by_code) == len(snapshot.agencies):
            raise ValueError("two agencies of a snapshot share a number or a code")
        if len(self._clients) != len(snapshot.clients):
            raise ValueError("two clients of a snapshot share an id")
        for client in snapshot.clients:
            if any(code not in self._by_code or self._by_code[code].body != client.body for code in client.agencies):
                raise ValueError("a client of a snapshot has rights at an agency that is not its body's")

    def agency(self, code: str) -> AgencyRow:
        """Return the open agency with this 16-digit code; ``Problem`` unknown_agency or agency_closed."""
        return _open(self._by_code.get(code))

    def by_number(self, number: int) -> AgencyRow:
        """Return the open agency with this number; ``Problem`` unknown_agency or agency_closed."""
        return _open(self._by_number.get(number))

    def find(self, number: int) -> AgencyRow | None:
        """Return the row of a number, also of a closed agency: what it left half done is still finished."""
        return self._by_number.get(number)

    def client(self, client_id: str) -> ClientRow:
        """Return a registered client; ``Problem`` unregistered_system."""
        found = self._clients.get(client_id)
        if found is None:
            raise Problem("unregistered_system")
        return found

    def is_stopped(self, kind: str, procedure: str) -> bool:
        """Tell whether a kill switch stands on this kind, this procedure, the two together, or everything."""
        return not self._stopped.isdisjoint(((kind, procedure), (kind, None), (None, procedure), (None, None)))

    def allow(self, client_id: str, agency_code: str, function: str, *, closed: bool = False) -> ClientRow:
        """Return the client if it may use a function at an agency; this is the one place where rights are judged.

        ``closed`` lets a closed agency pass too: only orders, which outlive it, are judged so.

        Raises:
            Problem: unregistered_system, wrong_agency (also for an agency that does not exist: nobody learns which do),
                agency_closed, officer_required, function_not_granted.
            ValueError: no such function, which is a mistake of ours.
        """
        if function not in FUNCTIONS:
            raise ValueError("no such function")
        client = self.client(client_id)
        if agency_code not in client.agencies:
            raise Problem("wrong_agency")
        if not closed:
            self.agency(agency_code)
        if function in OFFICER_FUNCTIONS and client.kind != "officer":
            raise Problem("officer_required")
        if function not in client.functions:
            raise Problem("function_not_granted")
        return client


def canonical(snapshot: Snapshot) -> bytes:
    """Return the one byte form of a snapshot: JSON, members sorted by name, rows sorted by their keys."""
    ordered = msgspec.structs.replace(
        snapshot,
        made_at=snapshot.made_at.astimezone(dt.UTC),
        agencies=sorted(snapshot.agencies, key=lambda row: row.number),
        clients=sorted(snapshot.clients, key=lambda row: row.id),
        stopped=sorted(snapshot.stopped, key=lambda stop: (stop.kind or "", stop.procedure or "")),
    )
    return msgspec.json.encode(ordered, order="sorted")


def key_id(public: Ed25519PublicKey) -> str:
    """Return the id of a signing key: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:_KEY_ID_DIGITS]


def sign(snapshot: Snapshot, key: Ed25519PrivateKey) -> SignedSnapshot:
    """Sign a snapshot; ``ValueError`` when it contradicts itself, for a signature would spread that."""
    body = canonical(snapshot)
    Directory(_decode(body))
    return SignedSnapshot(body, key.sign(_SIGNED_PREFIX + body), key_id(key.public_key()))


def require_environment(snapshot: Snapshot, environment: Environment) -> None:
    """Refuse the common data of another environment; ``Problem`` other_environment."""
    if snapshot.environment != environment:
        raise Problem("other_environment", expected=environment)


def verify(signed: SignedSnapshot, public: Ed25519PublicKey) -> Snapshot:
    """Return the snapshot if this key signed it; ``Problem`` signature_invalid otherwise."""
    try:
        public.verify(signed.signature, _SIGNED_PREFIX + signed.body)
        snapshot = _decode(signed.body)
    except (InvalidSignature, ValueError):
        raise Problem("signature_invalid") from None
    if signed.key != key_id(public) or canonical(snapshot) != signed.body:
        raise Problem("signature_invalid")
    return snapshot


def _decode(body: bytes) -> Snapshot:
    return msgspec.json.decode(body, type=Snapshot)


def _open(found: AgencyRow | None) -> AgencyRow:
    if found is None:
        raise Problem("unknown_agency")
    if found.state != "open":
        raise Problem("agency_closed")
    return found


# ---------------------------------------------------------------- builders of the next snapshot


def first(at: dt.datetime, law_number: int | str, environment: Environment = "production") -> Snapshot:
    """Return snapshot number 1, in which nobody has a right to anything."""
    return Snapshot(
        number=1, made_at=at, agencies=[], clients=[], stopped=[], law_number=law_number, environment=environment
    )


def add_agency(snapshot: Snapshot, at: dt.datetime, *, code: str, body: str, name: str, cell: str) -> Snapshot:
    """Return the next snapshot with a new agency; ``ValueError`` when the code is taken, also by a closed one."""
    number = max((row.number for row in snapshot.agencies), default=0) + 1
    row = AgencyRow(number=number, code=code, body=body, name=name, cell=cell, generation=1)
    return _next(snapshot, at, agencies=[*snapshot.agencies, row])


def close_agency(snapshot: Snapshot, at: dt.datetime, code: str) -> Snapshot:
    """Return the next snapshot with the agency closed; its row stays, so that its number is never given again.

    ``Problem`` unknown_agency or agency_closed.
    """
    row = Directory(snapshot).agency(code)
    return _replace_agency(snapshot, at, msgspec.structs.replace(row, state="closed"))


def move_agency(snapshot: Snapshot, at: dt.datetime, code: str, cell: str, generation: int | None = None) -> Snapshot:
    """Return the next snapshot with the agency in another cell, one generation later; ``Problem`` as above."""
    row = Directory(snapshot).agency(code)
    moved = msgspec.structs.replace(row, cell=cell, generation=generation or row.generation + 1)
    return _replace_agency(snapshot, at, moved)


def add_client(snapshot: Snapshot, at: dt.datetime, client: ClientRow) -> Snapshot:
    """Return the next snapshot with a client added, or put in the place of the one with its id."""
    others = [row for row in snapshot.clients if row.id != client.id]
    return _next(snapshot, at, clients=[*others, client])


def remove_client(snapshot: Snapshot, at: dt.datetime, client_id: str) -> Snapshot:
    """Return the next snapshot without a client; ``Problem`` unregistered_system."""
    gone = Directory(snapshot).client(client_id)
    return _next(snapshot, at, clients=[row for row in snapshot.clients if row.id != gone.id])


def stop(snapshot: Snapshot, at: dt.datetime, *, kind: str | None = None, procedure: str | None = None) -> Snapshot:
    """Return the next snapshot with a kill switch set; given neither kind nor procedure, it stops everything."""
    return _next(snapshot, at, stopped=[*_without(snapshot, kind, procedure), Stop(kind=kind, procedure=procedure)])


def lift(snapshot: Snapshot, at: dt.datetime, *, kind: str | None = None, procedure: str | None = None) -> Snapshot:
    """Return the next snapshot with exactly this kill switch lifted; others stay."""
    return _next(snapshot, at, stopped=_without(snapshot, kind, procedure))


def set_law(snapshot: Snapshot, at: dt.datetime, law_number: int | str) -> Snapshot:
    """Return the next snapshot with other lists of the law in force."""
    return _next(snapshot, at, law_number=law_number)


def renumber(snapshot: Snapshot, number: int, at: dt.datetime) -> Snapshot:
    """Return the same under another number, made at this instant."""
    return _decode(canonical(msgspec.structs.replace(snapshot, number=number, made_at=at)))


def _without(snapshot: Snapshot, kind: str | None, procedure: str | None) -> list[Stop]:
    return [row for row in snapshot.stopped if (row.kind, row.procedure) != (kind, procedure)]


def _replace_agency(snapshot: Snapshot, at: dt.datetime, row: AgencyRow) -> Snapshot:
    agencies = [row if other.number == row.number else other for other in snapshot.agencies]
    return _next(snapshot, at, agencies=agencies)


def _next(snapshot: Snapshot, at: dt.datetime, **changes: Sequence[_Row] | int | str) -> Snapshot:
    """Return the changed snapshot under the next number, with every field's form and the whole checked."""
    changed = msgspec.structs.replace(snapshot, number=snapshot.number + 1, made_at=at, **changes)
    checked = _decode(canonical(changed))
    Directory(checked)
    return checked
