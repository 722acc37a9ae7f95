"""schemathesis as an officer in a session: every call of the agency API, by a real account with two real factors.

The account is made as people make one: proposed by one card, approved by another, enrolled with both halves of its
code, signed in with a password and a card. At the end the session must still hold, or nothing of it was fuzzed.
"""

import datetime as dt
from typing import Any

import pytest

from chukan.tenants import directory
from chukan.tenants.officer_accounts import ACCOUNT_FUNCTIONS
from chukan.tests.support.nation import ASKS, GIVES_WEST, TAX

from .conftest import Api
from .test_openapi_fuzz import document, fuzz, operations

pytestmark = pytest.mark.asyncio(loop_scope="module")
OFFICER, SECOND, PASSWORD = "fuzz-officer", "fuzz-second", "correct horse battery"
CARDS = ("card-of-fuzz-officer", "card-of-another")
ENDING = {"logoutOfficer"}
"""Calls that end the session when they are made as they should be."""


async def made(api: Api, method: str, path: str, body: Any = None, *, by: int = 0, **headers: str) -> Any:
    """Make a call that must succeed, with the first or the second card."""
    status, _, answer = await api.send(method, path, body, agency=GIVES_WEST, by=CARDS[by], headers=headers)
    assert status < 300, answer
    return answer


async def session(api: Api) -> str:
    """Have two people make an account that may do everything, and sign its officer in."""
    for name in CARDS:
        row = directory.ClientRow(
            id=name, body=GIVES_WEST[4:10], kind="officer", name=name, agencies=[GIVES_WEST], functions=["order"]
        )
        api.world.snapshot = directory.add_client(api.world.snapshot, api.world.clock.now(), row)
    await api.world.publish()
    today = (api.world.clock.now() + dt.timedelta(hours=9)).date().isoformat()
    entries = []
    for officer, card, functions in ((OFFICER, CARDS[0], ACCOUNT_FUNCTIONS), (SECOND, CARDS[1], {"administer"})):
        entries += [{"act": "add", "officer": officer, "name": "試験 職員", "first": today}]
        entries += [{"act": "card", "officer": officer, "card": card}]
        entries += [
            {"act": "grant", "officer": officer, "function": each, "first": today} for each in sorted(functions)
        ]
    proposed = await made(api, "POST", "/officers/changes", {"entries": entries})
    approved = await made(api, "POST", f"/officers/changes/{proposed['id']}/approve", by=1)
    factors = {"officer": OFFICER, "password": PASSWORD}
    mine = [next(each["half"] for each in told["codes"] if each["officer"] == OFFICER) for told in (proposed, approved)]
    halves = dict(zip(("code_proposer", "code_approver"), mine, strict=True))
    await made(api, "POST", "/officers/enrol", factors | halves)
    signed_in: str = (await made(api, "POST", "/officers/login", factors))["session"]
    return signed_in


async def real_ids(api: Api, token: str) -> dict[str, str]:
    """Ids that exist at the officer's agency: a review and a load."""
    world = api.world
    person = await world.person(ASKS, GIVES_WEST, review=True)
    await world.ask(ASKS, [world.line(person, GIVES_WEST)])
    review = await world.until_some(world.west.reviews.list, world.agency(GIVES_WEST))
    body = {"kind": TAX, "layout": 202506, "mode": "difference", "expected": 1, "period": "2026"}
    load = await made(api, "POST", "/loads", body, **{"Chukan-Session": token})
    return {"path.agency": GIVES_WEST, "path.review": str(review.id), "path.load": load["id"]}


async def judged(api: Api, *, examples: int, seed: int, phases: str) -> None:
    token = await session(api)
    header = {"Chukan-Session": token}
    wanted = [name for name, (stream, _) in operations(await document(api)).items() if not stream]
    wanted = [name for name in wanted if name not in ENDING]
    assert len(wanted) > 50
    known = await real_ids(api, token)
    headers = [f"Chukan-Session: {token}"]
    await fuzz(api, CARDS[0], wanted, known, examples=examples, seed=seed, phases=phases, headers=headers)
    assert (await made(api, "GET", "/officers/me", **header))["officer"] == OFFICER


@pytest.mark.full
@pytest.mark.requirement("AUT-02", "CON-01", "TST-03")
async def test_a_session_meets_what_is_documented_whatever_it_sends(api: Api) -> None:
    await judged(api, examples=15, seed=20_261_124, phases="examples,coverage,fuzzing,stateful")
