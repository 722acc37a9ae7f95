"""Pushing: any exchange of the route, again until it is acknowledged, and never past a message's time."""

from collections.abc import Sequence

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.clock import ManualClock
from chukan.ops.sandbox import delivery as module
from chukan.ops.sandbox.endpoints import Route, backoff_s
from chukan.ops.sandbox.faults import Channel, Lost, NoFaults

from .conftest import PERSON, Pair, World


@pytest.mark.requirement("TXR-03")
async def test_the_other_exchange_gets_it_when_one_is_down(pair: Pair) -> None:
    """Only ``east`` listens; both stand in the route."""
    for _ in range(3):
        await pair.send(pair.world.answer(await pair.notice()))
    await pair.east.inbox.until(lambda: len(pair.east.inbox.answers_) == 3)
    west = await pair.world.exchange("west")
    assert pair.east.listener is not None
    await pair.east.listener.stop()
    await pair.send(pair.world.answer(await pair.notice()))
    await west.inbox.until(lambda: len(west.inbox.answers_) == 1)

    assert len({one.id for one in [*pair.east.inbox.answers_, *west.inbox.answers_]}) == 4


@pytest.mark.requirement("TXR-03")
async def test_what_nobody_could_take_is_pushed_when_somebody_comes_back(pair: Pair) -> None:
    assert pair.nation.listener is not None
    await pair.nation.listener.stop()
    await pair.ask()
    assert (await pair.world.network.state()).outbox == {"nation/notices": 1}
    await pair.nation.listen()
    await pair.nation.inbox.until(lambda: len(pair.nation.inbox.notices_) == 1)


async def test_again_is_pushed_once_more_with_the_same_id(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "backoff_s", lambda tries, chance: 0.0)
    pair.nation.inbox.status = "again"
    await pair.ask()
    await pair.nation.inbox.until(lambda: len(pair.nation.inbox.notices_) >= 2)
    pair.nation.inbox.status = "accepted"
    await pair.world.until_empty()

    assert len({notice.id for notice in pair.nation.inbox.notices_}) == 1


async def test_refused_is_final(pair: Pair) -> None:
    pair.nation.inbox.status = "refused"
    await pair.ask()
    await pair.nation.inbox.until(lambda: bool(pair.nation.inbox.notices_))
    await pair.world.until_empty()
    (record,) = (await pair.world.network.records(0, 10)).records

    assert len(pair.nation.inbox.notices_) == 1
    assert record.notified_at is None


async def test_an_acknowledgement_signed_by_somebody_else_counts_for_nothing(pair: Pair) -> None:
    await _acknowledge_as(pair, "nation", Ed25519PrivateKey.generate())


async def test_an_acknowledgement_by_a_peer_of_another_route_counts_for_nothing(pair: Pair) -> None:
    await _acknowledge_as(pair, "east", pair.east.signer._key)


async def _acknowledge_as(pair: Pair, name: str, key: Ed25519PrivateKey) -> None:
    """Let the provider sign as somebody else: the network pushes once more, until it hears from the provider itself."""
    signer = pair.nation.signer
    honest = signer._key, signer.sender, signer._key_id
    signer._key, signer.sender, signer._key_id = key, name, name
    await pair.ask()
    await pair.nation.inbox.until(lambda: len(pair.nation.inbox.notices_) >= 2)
    signer._key, signer.sender, signer._key_id = honest
    await pair.world.until_empty()

    assert len({notice.id for notice in pair.nation.inbox.notices_}) == 1


async def test_one_bad_message_does_not_hold_up_the_others_of_its_list(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "backoff_s", lambda tries, chance: 0.0)
    assert pair.nation.listener is not None
    await pair.nation.listener.stop()
    requests = [pair.world.request(pair.asks_code) for _ in range(3)]
    await pair.east.peer.permit_requests([msgspec.json.encode(request) for request in requests])
    # The middle one has no readable id: the receiver refuses its list as a whole.
    await pair.world.network.store.write(
        lambda c: c.execute("UPDATE outbox SET body = ? WHERE n = (SELECT min(n) + 1 FROM outbox)", (b'{"id": 1}',))
    )
    await pair.world.network._delivery.stop()
    pair.world.network._delivery = module.Delivery(
        pair.world.network._delivery._couriers[0]._means, pair.world.network._routes()
    )
    pair.world.network._delivery.start()
    await pair.nation.listen()
    await pair.nation.inbox.until(lambda: len(pair.nation.inbox.notices_) == 2)

    await pair.world.until(lambda state: state.outbox == {"nation/notices": 1})


async def test_many_messages_go_in_few_lists_in_order(pair: Pair) -> None:
    requests = [pair.world.request(pair.asks_code) for _ in range(600)]
    for start in (0, 300):
        await pair.east.peer.permit_requests(
            [msgspec.json.encode(request) for request in requests[start : start + 300]]
        )
    await pair.nation.inbox.until(lambda: len(pair.nation.inbox.notices_) == 600, 30)
    await pair.world.until_empty()

    assert pair.nation.inbox.calls < 12
    assert len({notice.id for notice in pair.nation.inbox.notices_}) == 600


async def test_a_fault_may_lose_a_push_and_nothing_is_lost(tmp_path, clock: ManualClock) -> None:
    class Losing(NoFaults):
        """Loses the first two pushes, and sends the third list twice over."""

        def __init__(self) -> None:
            self.pushes = 0
            self.calls: list[str] = []

        async def request(self, call: str) -> None:
            self.calls.append(f"request {call}")

        async def reply(self, call: str, items: Sequence[bytes]) -> Sequence[bytes]:
            self.calls.append(f"reply {call}")
            return items

        async def push(self, channel: Channel, items: Sequence[bytes]) -> Sequence[Sequence[bytes]]:
            self.pushes += 1
            if self.pushes <= 2:
                raise Lost
            return [items, items]

    faults = Losing()
    world = World(tmp_path, clock, faults)  # type: ignore[arg-type]
    await world.start()
    east = await world.exchange("east")
    acquired = await world.acquire("9901011002000001", PERSON, east)

    assert acquired.status == "acquired"
    assert faults.pushes == 3
    assert faults.calls == [
        "request acquisitions", "reply acquisitions", "request resident-codes", "reply resident-codes"
    ]  # fmt: skip
    await world.close()


async def test_a_lost_reply_is_recovered_by_asking_again(tmp_path, clock: ManualClock) -> None:
    class Deaf(NoFaults):
        def __init__(self) -> None:
            self.lost = 0

        async def reply(self, call: str, items: Sequence[bytes]) -> Sequence[bytes]:
            if call == "permit-requests" and not self.lost:
                self.lost += 1
                raise Lost
            return items

    world = World(tmp_path, clock, Deaf())  # type: ignore[arg-type]
    await world.start()
    east, nation = await world.exchange("east"), await world.exchange("nation")
    asks = await world.acquire("9901011002000001", PERSON, east)
    await world.acquire("9909000000000010", PERSON, nation)
    await world.announce("9901011002000001", east)
    body = msgspec.json.encode(world.request(asks.code or b""))
    with pytest.raises(Exception, match="network_unavailable"):
        await east.peer.permit_requests([body])
    (reply,) = await east.peer.permit_requests([body])
    await nation.inbox.until(lambda: bool(nation.inbox.notices_))

    assert reply.outcome == "permitted"
    assert len((await world.network.records(0, 10)).records) == 1
    await world.close()


def test_exchanges_take_turns_and_one_that_failed_comes_last(clock: ManualClock) -> None:
    route = Route("platform", ["a", "b", "c"], frozenset({"east"}), clock)
    firsts = {route.url(route.order()[0]) for _ in range(3)}
    route.failed(1)
    last = {route.url(route.order()[-1]) for _ in range(3)}
    clock.advance(6)
    later = {route.url(route.order()[-1]) for _ in range(3)}

    assert firsts == {"a", "b", "c"}
    assert last == {"b"}
    assert len(later) == 3


def test_pauses_double_up_to_a_bound_and_are_never_alike() -> None:
    class Draw:
        def __init__(self, byte: int) -> None:
            self.byte = byte

        def token(self, n: int) -> bytes:
            return bytes([self.byte]) * n

    assert [backoff_s(tries, Draw(255)) for tries in range(4)] == [0.2, 0.4, 0.8, 1.6]  # type: ignore[arg-type]
    assert backoff_s(50, Draw(255)) == 5.0  # type: ignore[arg-type]
    assert backoff_s(50, Draw(0)) == 2.5  # type: ignore[arg-type]
