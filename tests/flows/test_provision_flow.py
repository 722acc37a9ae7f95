"""The provider's flow: nothing leaves without permit, list, no stop and no hold (invariant 4)."""

import datetime as dt
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chukan.platform.flows import provision as flow
from chukan.platform.law import Decision, Law, Verdict
from chukan.platform.wire.agency import Gap
from chukan.platform.wire.network import Condition, ProviderPermit
from chukan.tenants.states import LinkStatus, Outcome, ProvisionState

NOW = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
LAW = Law.load()
SKEW = dt.timedelta(seconds=2)
EVER = dt.datetime.min.replace(tzinfo=dt.UTC)
KIND = "TM00000000000002"
YES = Decision(Verdict.YES, "listed")


def permit(items=("x",), expires_in_s=900.0):
    return ProviderPermit(
        permit=uuid.UUID(int=1),
        code=b"c" * 32,
        inquirer="9901011002000001",
        provider="9901141003000001",
        department="税務課",
        affair="JM01000000121000",
        procedure="JT01010000000214",
        kind=KIND,
        items=list(items),
        condition=Condition(),
        asked_at=NOW,
        issued_at=NOW,
        expires_at=NOW + dt.timedelta(seconds=expires_in_s),
        answer_key="k",
        answer_key_public=b"p" * 32,
        route="r",
    )


def judge(
    *, decision=YES, stopped=False, link=LinkStatus.ACTIVE, held=False, copies=1, expires_in_s=900.0, opened_at=EVER
):
    return flow.judge(
        permit(expires_in_s=expires_in_s),
        now=NOW,
        skew=SKEW,
        opened_at=opened_at,
        decision=decision,
        stopped=stopped,
        found=flow.Found(link=link, held=held, copies=copies),
    )


@pytest.mark.requirement("PRV-04")
def test_an_allowed_query_for_a_copy_without_hold_is_answered_automatically():
    assert judge() == flow.Judgement(ProvisionState.ANSWERED, Outcome.PROVIDED)


@pytest.mark.requirement("PRV-01", "PRV-05", "PRV-09", "LAW-01")
@pytest.mark.parametrize(
    ("given_facts", "state", "outcome"),
    [
        ({"decision": Decision(Verdict.NO, "not_on_list")}, ProvisionState.ANSWERED, Outcome.NOT_PERMITTED),
        ({"decision": Decision(Verdict.UNKNOWN, "no_list_for_day")}, ProvisionState.ANSWERED, Outcome.NOT_PERMITTED),
        ({"stopped": True}, ProvisionState.ANSWERED, Outcome.STOPPED),
        ({"link": None}, ProvisionState.ANSWERED, Outcome.NO_CODE),
        ({"link": LinkStatus.SUSPENDED}, ProvisionState.HELD, Outcome.UNDER_REVIEW),
        ({"held": True}, ProvisionState.HELD, Outcome.UNDER_REVIEW),
        ({"copies": 0}, ProvisionState.ANSWERED, Outcome.NO_RECORD),
        ({"expires_in_s": -1.0}, ProvisionState.LAPSED, Outcome.EXPIRED),
    ],
)
def test_each_reason_not_to_provide(given_facts, state, outcome):
    judgement = judge(**given_facts)
    assert (judgement.state, judgement.outcome) == (state, outcome)
    assert judgement.reason


@pytest.mark.requirement("PRV-03")
@pytest.mark.parametrize("facts", [{}, {"held": True}, {"link": None}, {"expires_in_s": 1.0}], ids=str)
def test_a_permit_of_before_a_restore_is_neither_answered_nor_held(facts):
    issued = permit(expires_in_s=900.0).issued_at
    assert judge(**facts, opened_at=issued).reason != flow.BEFORE_RESTORE
    later = judge(**facts, opened_at=issued + dt.timedelta(microseconds=1))
    assert later == flow.Judgement(ProvisionState.LAPSED, Outcome.EXPIRED, "permit_before_restore")


@pytest.mark.requirement("PRV-03")
@pytest.mark.parametrize(("left_s", "lapsed"), [(2.001, False), (2.0, True), (1.0, True)])
def test_the_provider_stops_at_expiry_less_the_skew_allowance(left_s, lapsed):
    assert (judge(expires_in_s=left_s).state is ProvisionState.LAPSED) is lapsed


ITEMS = sorted(LAW.layout(KIND, LAW.layouts_in_force(KIND, dt.date(2026, 11, 23))[-1].version).items)


@pytest.mark.requirement("PRV-06", "PRV-10")
@given(
    asked=st.lists(st.sampled_from(ITEMS), min_size=1, unique=True),
    allowed=st.sets(st.sampled_from(ITEMS)),
    held=st.dictionaries(st.sampled_from(ITEMS), st.sampled_from(["1", "0", "-5"])),
)
def test_what_leaves_is_within_permit_and_procedure_and_missing_is_never_zero(asked, allowed, held):
    version = LAW.layouts_in_force(KIND, dt.date(2026, 11, 23))[-1].version
    copy = flow.ClearCopy(layout=version, effective_from=dt.date(2026, 6, 1), period="2026", items=held)
    content, outcome = flow.content(permit(asked), LAW, frozenset(allowed), [copy])
    items = content.copies[0].items
    assert set(items) == set(asked) & allowed
    for code, value in items.items():
        assert value == held[code] if code in held else isinstance(value, Gap)
    assert (outcome is Outcome.PROVIDED_WITH_GAPS) == any(isinstance(value, Gap) for value in items.values())


@pytest.mark.requirement("PRV-05")
@pytest.mark.parametrize(("left_s", "escalated"), [(301, False), (300, True), (1, True), (0, False), (-1, False)])
def test_a_review_is_escalated_in_the_last_minutes_of_its_permit(left_s, escalated):
    asked = permit(expires_in_s=900.0)
    assert flow.escalated(asked, asked.expires_at - dt.timedelta(seconds=left_s)) is escalated
