"""Messages by which an inquirer asks a provider to acquire a linkage code (施行令26条3項; protocol 1.3).

The provider's answer key is asked for, the four facts are sealed to it, and the network passes them on unopened.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Literal

import msgspec

from chukan.platform.wire.network import AgencyCode, Code16, Instant, Message


class ProviderKeyRequest(Message, frozen=True):
    """Asks for the answer key of a provider that has no code of the person (施行令26条3項): facts are sealed to it."""

    id: uuid.UUID
    inquirer: AgencyCode
    request: uuid.UUID
    """Id of the permit request that ended with ``no_code``."""


class ProviderKeyReply(Message, frozen=True):
    """The provider's newest answer key; nothing is kept."""

    id: uuid.UUID
    outcome: Literal["answered", "bad_request"]
    key: str | None = None
    public: bytes | None = None
    reason: str | None = None


class AcquisitionAsk(Message, frozen=True):
    """Asks the provider to acquire a code, with the four facts that only it can open (施行令26条3項)."""

    id: uuid.UUID
    inquirer: AgencyCode
    request: uuid.UUID
    """Id of the permit request that ended with ``no_code``; one request to acquire is passed on for it."""
    asked_at: Instant
    key: str
    """Id of the provider's answer key."""
    sealed: Annotated[bytes, msgspec.Meta(max_length=8192)]
    """JSON of ``PersonFacts``, HPKE-sealed."""


class AcquisitionAskReply(Message, frozen=True):
    """Acknowledges one request to acquire."""

    id: uuid.UUID
    status: Literal["accepted", "refused"]
    reason: str | None = None


class AcquisitionNotice(Message, frozen=True):
    """Tells a provider that an inquirer asks it to acquire a code (施行令26条3項)."""

    id: uuid.UUID
    provider: AgencyCode
    inquirer: AgencyCode
    affair: Code16
    kind: Code16
    asked_at: Instant
    key: str
    sealed: Annotated[bytes, msgspec.Meta(max_length=8192)]
