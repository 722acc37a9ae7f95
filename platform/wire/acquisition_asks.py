"""Requests to acquire a linkage code (符号取得の依頼, 施行令26条2項・3項) on the agency's wire.

The four basic facts of a person travel in bodies only: from the inquirer's system into the seal for the provider, and
from the provider's partition to its own system. They are in no other message.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Literal

import msgspec

from chukan.platform.wire.agency import PLAIN, Addressee, CodeStatus
from chukan.platform.wire.network import Instant, Message


class PersonFacts(Message, frozen=True):
    """The four basic facts (基本4情報): 氏名・生年月日・性別・住所."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=PLAIN, description="氏名")]
    birth_date: Annotated[dt.date, msgspec.Meta(description="生年月日")]
    sex: Annotated[Literal["male", "female", "other", "unknown"], msgspec.Meta(description="性別")]
    address: Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=PLAIN, description="住所")]


class AskedToAcquire(Message, frozen=True):
    """Reply of ``POST /queries/{id}/request-acquisition``: the network has passed it on, or did so before."""

    id: uuid.UUID
    """The query line."""
    provider: str
    status: Literal["requested"]


class AcquisitionAskView(Message, frozen=True):
    """One request that came to a provider, with the facts by which its staff find the person."""

    id: uuid.UUID
    inquirer: str
    affair: str
    kind: str
    facts: PersonFacts
    received_at: Instant
    until: Instant
    """When it is deleted, whatever became of it."""


class AcquisitionAskViews(Message, frozen=True):
    """``GET /acquisition-requests``: the open ones, oldest first, at most 1,000."""

    requests: list[AcquisitionAskView]


class AcquisitionAnswer(Message, frozen=True):
    """``POST /acquisition-requests/{id}/fulfil``: the person's addressee number here; an acquisition is opened for it.

    Without one the request is declined: nobody here is that person.
    """

    addressee: Addressee | None = None


class AcquisitionAnswered(Message, frozen=True):
    """What became of a request; ``link`` is as in ``POST /codes``."""

    id: uuid.UUID
    status: Literal["fulfilled", "declined"]
    link: CodeStatus | None = None
