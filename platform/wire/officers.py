"""Officers (職員): accounts, changes of them, signing in. ``/officers`` of the agency API.

A name stands in these messages, for they go to the agency's own administrators; a password or a code stands in
requests, and nothing that was sent comes back. No personal number of anybody belongs into any of them.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Any, Final, Literal

import msgspec

from chukan.platform.wire.agency import PLAIN
from chukan.platform.wire.network import END, LINES_MAX, Code16, Instant, Message

OFFICER_FORM: Final = r"^[0-9A-Za-z][0-9A-Za-z._-]{0,31}" + END
_CLIENT_FORM: Final = r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}" + END

OfficerId = Annotated[str, msgspec.Meta(pattern=OFFICER_FORM, description="職員ID", examples=["k-tanaka"])]
ClientId = Annotated[str, msgspec.Meta(pattern=_CLIENT_FORM, description="Registered id of an officer's certificate")]
Name = Annotated[str, msgspec.Meta(max_length=100, pattern=PLAIN)]
Password = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
HalfCode = Annotated[str, msgspec.Meta(pattern=r"^[A-Z2-7]{8}" + END, description="登録コードの半分")]
Function = Literal[
    "copies",
    "codes",
    "queries",
    "records",
    "reviews.prepare",
    "reviews.approve",
    "holds",
    "order",
    "residents",
    "administer",
]


class OfficerEntry(Message, frozen=True):
    """One line of a change (人事異動): what is done to which officer. Dates are days in Japan, both included."""

    act: Literal["add", "grant", "revoke", "end", "unlock", "enrol", "card", "cardless"]
    """``add`` an account; ``grant`` or ``revoke`` a function; ``end`` the service on a day; ``unlock`` after failures;
    ``enrol`` anew, which makes the old factors void at once; ``card`` names the officer's card, ``cardless`` says that
    there is none: who has said neither of these is never taken for another person than who acts by a card."""
    officer: OfficerId
    name: Name = ""
    department: Name = ""
    function: Function | None = None
    affair: Code16 | None = None
    """One affair (事務) that the function is for; every affair unless given."""
    first: dt.date | None = None
    """First day; today unless given."""
    last: dt.date | None = None
    """Last day; until further notice unless given."""
    card: ClientId | None = None
    """The officer's own client certificate, where a card is the second factor."""


class OfficerChangePost(Message, frozen=True):
    """``POST /officers/changes``: entries that come into force together, once another administrator approves."""

    entries: Annotated[list[OfficerEntry], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    reason: Annotated[str, msgspec.Meta(max_length=200, pattern=PLAIN)] = ""


class HalfCodeView(Message, frozen=True):
    """Half of the one-time code by which an officer sets the factors; whoever decides sees one half only."""

    officer: OfficerId
    half: HalfCode


class OfficerChange(Message, frozen=True):
    """A change as it stands."""

    id: uuid.UUID
    state: Literal["open", "approved", "rejected"]
    proposer: str
    at: Instant
    entries: list[OfficerEntry]
    reason: str = ""
    decided_by: str | None = None
    codes: list[HalfCodeView] = msgspec.field(default_factory=list)
    """To be handed over by who reads this: the proposer's halves at the proposal, the approver's at the approval."""


class OfficerChanges(Message, frozen=True):
    """``GET /officers/changes``: what waits, oldest first, then what was decided last."""

    changes: list[OfficerChange]


class GrantView(Message, frozen=True):
    """One right of an officer."""

    function: str
    first: dt.date
    affair: str | None = None
    last: dt.date | None = None


class OfficerView(Message, frozen=True):
    """An account as administrators see it."""

    officer: OfficerId
    name: str
    department: str
    first: dt.date
    enrolled: bool
    grants: list[GrantView]
    last: dt.date | None = None
    card: str | None = None
    locked_until: Instant | None = None


class Officers(Message, frozen=True):
    """``GET /officers``."""

    officers: list[OfficerView]


class ChallengeAsk(Message, frozen=True):
    """``POST /officers/challenge``: what the authenticator has to sign."""

    officer: OfficerId
    purpose: Literal["login", "enrol"] = "login"


class PasskeyChallenge(Message, frozen=True):
    """The options for ``navigator.credentials.get`` or ``.create``, as W3C Web Authentication defines their JSON."""

    options: dict[str, Any]


class SignIn(Message, frozen=True):
    """``POST /officers/login``: a password, and an authenticator's answer or the card of this connection."""

    officer: OfficerId
    password: Password
    passkey: dict[str, Any] | None = None
    """What ``navigator.credentials.get`` answered; without it, the connection's own certificate is the card."""


class AffairRight(Message, frozen=True):
    """A function that the officer has now."""

    function: str
    affairs: list[str] | None = None
    """The affairs that it is for; every affair where there is none of this."""


class SignedIn(Message, frozen=True):
    """A session: ``session`` goes into the header ``Chukan-Session`` of every call, at this terminal only."""

    session: str
    officer: OfficerId
    until: Instant
    idle_s: int
    rights: list[AffairRight]


class SessionView(Message, frozen=True):
    """``GET /officers/me``, and what is left after ``POST /officers/logout``."""

    officer: OfficerId
    until: Instant
    rights: list[AffairRight]


class SignedOut(Message, frozen=True):
    """The session is no more."""

    officer: OfficerId


class Enrol(Message, frozen=True):
    """``POST /officers/enrol``: an officer sets the own factors, once, with both halves of the code."""

    officer: OfficerId
    code_proposer: HalfCode
    code_approver: HalfCode
    password: Password
    passkey: dict[str, Any] | None = None
    """What ``navigator.credentials.create`` answered; without it, the connection's own certificate is the card."""


class PasswordChange(Message, frozen=True):
    """``POST /officers/password``: an officer changes the own password; every session ends, this one too."""

    password: Password
    new: Password


class Enrolled(Message, frozen=True):
    """Both factors are set."""

    officer: OfficerId
    factor: Literal["passkey", "card"]
