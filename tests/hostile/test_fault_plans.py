"""The hostile network itself: it does what its plan says, the same for the same seed, and counts what it did."""

import datetime as dt
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.chance import SeededChance
from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.ops.sandbox.faults import FaultCounts, FaultName, FaultPlan, FaultRule, Lost, NoFaults
from chukan.ops.sandbox.forgery import Forger, Means
from chukan.ops.sandbox.hostility import PlannedFaults
from chukan.ops.sandbox.listener import Listener
from chukan.ops.sandbox.network_app import admin_application
from chukan.platform.envelope import Opener, Signed, Signer
from chukan.platform.permits import PermitVerifier, sign_list
from chukan.platform.wire.network import Condition, Notice, ProviderPermit, SignedPermit

KEY = Ed25519PrivateKey.generate()
NOW = dt.datetime(2026, 11, 23, 1, 2, 3, tzinfo=dt.UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def means(clock: ManualClock) -> Means:
    chance = SeededChance(5, clock)

    def sign(bodies: Any) -> list[SignedPermit]:
        return sign_list(bodies, list_id=chance.uuid7(), key_id="network", key=KEY)

    return Means(sign, clock, chance)


def planned(means: Means, *rules: FaultRule, seed: int = 1) -> PlannedFaults:
    return PlannedFaults(FaultPlan(seed=seed, rules=rules), sender="network", key=KEY, means=means)


def notice(means: Means, *, count: int = 1) -> list[bytes]:
    """Genuine notices whose permits stand in one list."""
    bodies = [
        msgspec.json.encode(
            ProviderPermit(
                permit=means.chance.uuid7(),
                code=b"c" * 32,
                inquirer="9901131121000001",
                provider="9901011002000001",
                department="課",
                affair="JM01000000121000",
                procedure="JT01010000000214",
                kind="TM00000000000002",
                items=["TKX0020000000001"],
                condition=Condition(),
                asked_at=NOW,
                issued_at=NOW,
                expires_at=NOW + dt.timedelta(minutes=15),
                answer_key="k",
                answer_key_public=X25519PrivateKey.generate().public_key().public_bytes_raw(),
                route="nws-1",
            )
        )
        for _ in range(count)
    ]
    return [msgspec.json.encode(Notice(id=means.chance.uuid7(), permit=entry)) for entry in means.sign(bodies)]


async def struck(faults: PlannedFaults, rounds: int = 200) -> list[int]:
    lost = []
    for number in range(rounds):
        try:
            await faults.request("answers")
        except Lost:
            lost.append(number)
    return lost


@pytest.mark.requirement("TST-03")
async def test_the_same_seed_strikes_the_same_messages(means: Means) -> None:
    rule = FaultRule(fault="drop_before", share=0.3)
    first = await struck(planned(means, rule, seed=7))
    assert first == await struck(planned(means, rule, seed=7))
    assert first != await struck(planned(means, rule, seed=8))
    assert 30 <= len(first) <= 90


async def test_a_rule_ends_after_its_times_and_keeps_to_its_place(means: Means) -> None:
    faults = planned(means, FaultRule(fault="error_503", at=("call answers",), times=2))
    await faults.request("permit-requests")
    for _ in range(2):
        with pytest.raises(Problem, match="busy"):
            await faults.request("answers")
    await faults.request("answers")
    assert [(count.fault, count.at, count.times) for count in faults.counts().counts] == [
        ("error_503", "call answers", 2)
    ]


async def test_what_a_message_does_not_allow_is_not_counted(means: Means) -> None:
    faults = planned(
        means, *(FaultRule(fault=fault) for fault in ("fewer_items", "reordered", "replayed", "unreadable_answer"))
    )
    (item,) = notice(means)
    assert await faults.push("notices", [item]) == [[item]]
    assert faults.counts().counts == []


@pytest.mark.requirement("PRV-01", "TXR-04")
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("fault", ["forged_permit", "wrong_signature", "swapped_path", "expired_permit"])
def test_each_forgery_is_wrong_in_its_own_way(means: Means, clock: ManualClock, fault: FaultName, size: int) -> None:
    verifier = PermitVerifier({"network": KEY.public_key()}, clock, skew_s=2)
    for genuine in notice(means, count=size):
        entry = msgspec.json.decode(genuine, type=Notice)
        verifier.check_current(verifier.verify_provider(entry.permit))
        forged = msgspec.json.decode(Forger(means).notice(fault, genuine), type=Notice)
        assert forged.id != entry.id
        if fault == "expired_permit":
            with pytest.raises(Problem, match="permit_expired"):
                verifier.check_current(verifier.verify_provider(forged.permit))
        else:
            with pytest.raises(Problem, match="permit_forged"):
                verifier.verify_provider(forged.permit)


def opened(opener: Opener, signed: Signed, to: uuid.UUID) -> None:
    """Open a request, or a reply to a request."""
    if signed.status:
        opener.reply(signed.status, signed.headers, signed.body, to=to)
    else:
        opener.request(signed.method, signed.path, signed.headers, signed.body)


@pytest.mark.requirement("TXR-04")
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("wrong_key", "signature_invalid"),
        ("stale", "message_stale"),
        ("unsigned", "signature_invalid"),
        ("truncated", "signature_invalid"),
    ],
)
def test_a_changed_envelope_is_no_word_of_the_network(
    means: Means, clock: ManualClock, fault: FaultName, code: str
) -> None:
    signer, opener = Signer("network", KEY, clock, means.chance), Opener({"network": KEY.public_key()}, clock)
    to = uuid.uuid4()
    for signed in (signer.request("POST", "/exchange/v1/notices", notice(means)), signer.reply(notice(means), to)):
        changed = planned(means, FaultRule(fault=fault)).envelope("push notices", signed)
        with pytest.raises(Problem, match=code):
            opened(opener, changed, to)


async def test_a_network_without_faults_changes_nothing(means: Means) -> None:
    items = notice(means, count=3)
    signed = Signer("network", KEY, means.clock, means.chance).request("POST", "/x", items)
    for faults in (NoFaults(), planned(means)):
        await faults.request("answers")
        assert await faults.reply("answers", items) == items
        assert await faults.push("notices", items) == [items]
        await faults.pushed("notices", items)
        assert faults.envelope("push notices", signed) == signed


# ---------------------------------------------------------------- PUT /admin/faults


class Steered:
    """As much of a network as the admin endpoint's faults need."""

    def __init__(self) -> None:
        self.plans: list[FaultPlan] = []

    def put_faults(self, plan: FaultPlan) -> int:
        self.plans.append(plan)
        return len(plan.rules)

    def fault_counts(self) -> FaultCounts:
        return FaultCounts(seed=self.plans[-1].seed, counts=[])


@pytest.fixture
async def steered() -> AsyncIterator[tuple[Steered, str]]:
    network = Steered()
    listener = Listener(admin_application(network), "127.0.0.1", 0)  # type: ignore[arg-type]
    await listener.start()
    yield network, f"{listener.url}/admin/faults"
    await listener.stop()


async def test_a_plan_is_put_over_the_admin_endpoint(steered: tuple[Steered, str], tmp_path: Path) -> None:
    network, url = steered
    plan = {"seed": 9, "rules": [{"fault": "slow", "at": ["push codes"], "share": 0.5, "delay_s": 2.0}]}
    async with aiohttp.ClientSession() as session:
        async with session.put(url, json=plan) as answer:
            assert (answer.status, await answer.json()) == (200, {"count": 1})
        async with session.get(url) as answer:
            assert (answer.status, await answer.json()) == (200, {"seed": 9, "counts": []})
    (put,) = network.plans
    assert put.rules == (FaultRule(fault="slow", at=("push codes",), share=0.5, delay_s=2.0),)


@pytest.mark.parametrize(
    "rule",
    [
        {"fault": "kindness"},
        {"fault": "slow", "at": ["everywhere"]},
        {"fault": "slow", "share": 0},
        {"fault": "slow", "share": 1.1},
        {"fault": "slow", "times": 0},
        {"fault": "slow", "delay_s": 61},
        {"fault": "slow", "more": 1},
    ],
)
async def test_a_plan_that_makes_no_sense_is_refused(steered: tuple[Steered, str], rule: dict[str, Any]) -> None:
    network, url = steered
    async with aiohttp.ClientSession() as session, session.put(url, json={"rules": [rule]}) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (422, "invalid_field")
    assert network.plans == []
