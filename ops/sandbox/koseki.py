"""How the Minister of Justice (法務大臣) acquires codes (施行令27条の2・27条の3): by way of the mayor of the domicile.

The minister keeps family registers (戸籍) and has no resident codes. It asks the network for an acquisition number as
any agency does, and hands that with its own reference of the person to the mayor of the registered domicile
(本籍地市町村長). The mayor looks the person up in the annex to the family register (戸籍の附票) and hands number and
resident code to the registry network; the code then goes from the network to the minister. Whom the annex knows as a
specified non-resident (特定非居住者) has no resident code that may be used: the mayor tells the minister so, and
nothing goes any further.

Invariant: the minister sees no resident code, the mayor no linkage code, the network no family register. An acquisition
number is forgotten by everybody who has passed it on or used it.
"""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, Protocol

import msgspec

from chukan.chance import Chance
from chukan.ops.sandbox.person import Person
from chukan.platform.peer import NetworkPeer
from chukan.platform.wire.network import (
    LINES_MAX,
    Ack,
    AcquiredCode,
    AcquisitionRequest,
    Message,
)

MINISTER: Final = "9909000000000002"
"""法務大臣, as the law's data name it."""


class Registry(Protocol):
    """The registry network (住基ネット) as a mayor reaches it; ``RegistryClient`` is one."""

    async def hand_over(self, pairs: Sequence[tuple[str, str]]) -> int:
        """Hand over (acquisition number, resident code) pairs; returns how many were accepted. Raises ``Problem``."""
        ...


class KosekiNotice(Message, frozen=True):
    """From the minister to a mayor: acquire a code for this person of your registers (施行令27条の2)."""

    number: str
    """The acquisition number."""
    reference: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    """The person's place in the family registers; of no use to anybody else."""


class KosekiReply(Message, frozen=True):
    """What the mayor did, by the person's reference; the number is not repeated."""

    reference: str
    status: Literal["passed_on", "specified_non_resident", "not_in_annex", "unknown_number"]


class AnnexEntry(Message, frozen=True):
    """A person in the annex to the family register (戸籍の附票)."""

    resident_code: str | None
    """None for who never had one."""
    specified_non_resident: bool = False
    """特定非居住者."""


def annex_of(people: Mapping[str, Person]) -> dict[str, AnnexEntry]:
    """The annex in which these people stand, by the minister's reference of each."""
    return {reference: AnnexEntry(resident_code=person.resident_code) for reference, person in people.items()}


def notices_of(pairs: Sequence[tuple[str, str]]) -> list[KosekiNotice]:
    """The minister's notices for (acquisition number, reference) pairs."""
    return [KosekiNotice(number=number, reference=reference) for number, reference in pairs]


class DomicileMayor:
    """The mayor of a registered domicile (本籍地市町村長), with the annex of its registers."""

    def __init__(self, annex: Mapping[str, AnnexEntry], registry: Registry) -> None:
        self._annex = annex
        self._registry = registry

    async def notices(self, items: Sequence[KosekiNotice]) -> list[KosekiReply]:
        """Pass numbers on with the resident codes of the annex; a reply for each. Raises ``Problem``.

        A repeat has no second effect: the network knows a number that was used.
        """
        return [KosekiReply(reference=item.reference, status=await self._pass_on(item)) for item in items]

    async def _pass_on(
        self, item: KosekiNotice
    ) -> Literal["passed_on", "specified_non_resident", "not_in_annex", "unknown_number"]:
        entry = self._annex.get(item.reference)
        if entry is None:
            return "not_in_annex"
        if entry.specified_non_resident or entry.resident_code is None:
            return "specified_non_resident"
        accepted = await self._registry.hand_over([(item.number, entry.resident_code)])
        return "passed_on" if accepted else "unknown_number"


class Minister:
    """The Minister of Justice as the inquirer and provider that it is: knows its people by references and codes."""

    def __init__(
        self, peer: NetworkPeer, mayors: Mapping[str, DomicileMayor], chance: Chance, *, agency: str = MINISTER
    ) -> None:
        self._peer = peer
        self._mayors = mayors
        self._chance = chance
        self._agency = agency
        self._open: dict[str, str] = {}
        self.codes_of: dict[str, bytes] = {}
        """Linkage codes by reference."""
        self.refused: dict[str, str] = {}
        """References of whom no code can be acquired, and the mayor's word."""

    async def acquire(self, people: Sequence[tuple[str, str]]) -> None:
        """Begin acquisitions for (reference, body code of the registered domicile) pairs, at most 1,000.

        Raises:
            Problem: network_unavailable, after which it is called again; KeyError for a domicile without a mayor.
        """
        if len(people) > LINES_MAX:
            raise ValueError("a list has at most 1,000 lines")
        requests = {self._chance.uuid7(): person for person in people}
        items = [AcquisitionRequest(id=request, agency=self._agency) for request in requests]
        replies = await self._peer.acquisitions([msgspec.json.encode(item) for item in items]) if items else []
        by_domicile: dict[str, list[KosekiNotice]] = defaultdict(list)
        for reply in replies:
            reference, domicile = requests[uuid.UUID(str(reply.id))]
            by_domicile[domicile].append(KosekiNotice(number=reply.number, reference=reference))
            self._open[reply.number] = reference
        for domicile, notices in by_domicile.items():
            self._told(notices, await self._mayors[domicile].notices(notices))

    def _told(self, notices: Sequence[KosekiNotice], replies: Sequence[KosekiReply]) -> None:
        for notice, reply in zip(notices, replies, strict=True):
            if reply.status != "passed_on":
                self._open.pop(notice.number, None)
                self.refused[reply.reference] = reply.status

    async def codes(self, items: Sequence[AcquiredCode], /) -> list[Ack]:
        """Take the codes that the network pushes; the number is forgotten with it."""
        acks = []
        for item in items:
            reference = self._open.pop(item.number, None)
            if reference is not None and item.code is not None:
                self.codes_of[reference] = item.code
            known = reference is not None or item.code in self.codes_of.values()
            acks.append(
                Ack(id=item.id, status="accepted" if known else "refused", reason=None if known else "not_found")
            )
        return acks

    @property
    def open_numbers(self) -> int:
        """How many acquisition numbers are kept."""
        return len(self._open)
