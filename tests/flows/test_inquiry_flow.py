"""The inquirer's flow: deny by default, and what each event makes of a line."""

import datetime as dt
import uuid

import pytest

from chukan.errors import Problem
from chukan.platform.flows import inquiry as flow
from chukan.platform.law import Law
from chukan.platform.wire.agency import QueryLine
from chukan.platform.wire.network import Condition, InquirerPermit, PermitReply
from chukan.tenants.states import InquiryState, LinkStatus, Outcome

NOW = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
LAW = Law.load()
TODAY = dt.date(2026, 11, 23)
MAYOR, OTHER = "9901011002000001", "9901141003000001"


def asked(**changes):
    values = {
        "addressee": "000000000000001",
        "kind": "TM00000000000002",
        "provider": OTHER,
        "affair": "JM01000000121000",
        "procedure": "JT01010000000214",
        "department": "税務課",
        "condition": Condition(period="0"),
    }
    return QueryLine(**{**values, **changes})


def facts(**changes):
    values = {
        "inquirer": MAYOR,
        "today": TODAY,
        "now": NOW,
        "provider_known": True,
        "stopped": False,
        "link": LinkStatus.ACTIVE,
    }
    return flow.Facts(**{**values, **changes})


@pytest.mark.requirement("INQ-01", "INQ-02")
def test_a_line_on_the_list_is_admitted_with_the_items_that_the_procedure_allows():
    step = flow.judge(asked(), LAW, facts())
    assert isinstance(step, flow.Step)
    assert step.state is InquiryState.ACCEPTED
    assert not step.final
    newest = LAW.layouts_in_force("TM00000000000002", TODAY)[-1]
    assert set(step.items) == LAW.allowed_items("JT01010000000214", "TM00000000000002", TODAY) & set(newest.items)


@pytest.mark.requirement("INQ-02")
@pytest.mark.parametrize(
    ("changes", "given", "outcome", "reason"),
    [
        ({}, {"link": None}, Outcome.NO_CODE, "no_code"),
        ({}, {"link": LinkStatus.SUSPENDED}, Outcome.NO_CODE, "link_suspended"),
        ({}, {"link": LinkStatus.REQUESTED}, Outcome.NO_CODE, "link_requested"),
        ({}, {"stopped": True}, Outcome.STOPPED, "kind_stopped"),
        ({}, {"today": dt.date(2020, 1, 1)}, Outcome.NOT_PERMITTED, "list_unknown"),
        ({"provider": MAYOR}, {}, Outcome.NOT_PERMITTED, "same_agency"),
    ],
)
def test_what_may_not_be_asked_closes_at_once(changes, given, outcome, reason):
    step = flow.judge(asked(**changes), LAW, facts(**given))
    assert isinstance(step, flow.Step)
    assert (step.outcome, step.reason, step.final) == (outcome, reason, True)


@pytest.mark.requirement("PRV-06", "INQ-02")
def test_an_item_that_the_procedure_does_not_allow_closes_the_line():
    kind = "TM00000000000002"
    known = {item for k, v in LAW.layouts if k == kind for item in LAW.layout(k, v).items}
    extra = sorted(known - LAW.allowed_items("JT01010000000214", kind, TODAY))
    if not extra:
        pytest.fail("the illustrative data must hold an item that this procedure may not receive")
    step = flow.judge(asked(items=[extra[0]]), LAW, facts())
    assert (step.outcome, step.reason) == (Outcome.NOT_PERMITTED, "item_not_allowed")


@pytest.mark.requirement("INQ-01", "INQ-07")
@pytest.mark.parametrize(
    ("changes", "given", "code"),
    [
        ({"kind": "TMX9999999999999"}, {}, "unknown_kind"),
        ({"affair": "JMX9999999999999"}, {}, "unknown_affair"),
        ({"procedure": "JTX9999999999999"}, {}, "unknown_procedure"),
        ({"affair": "JMX0000000000001"}, {}, "procedure_not_of_affair"),
        ({"items": ["TKX0000000000000"]}, {}, "unknown_item"),
        ({"condition": Condition(period="1")}, {}, "bad_condition"),
        ({"condition": Condition(period="0", year="2025")}, {}, "bad_condition"),
        ({}, {"provider_known": False}, "unknown_agency"),
    ],
)
def test_what_is_malformed_is_refused_before_acceptance(changes, given, code):
    verdict = flow.judge(asked(**changes), LAW, facts(**given))
    assert isinstance(verdict, flow.Refused)
    assert verdict.problem.code == code


def permit(expires_in_s=900):
    return InquirerPermit(
        permit=uuid.UUID(int=1),
        request=uuid.UUID(int=2),
        inquirer=MAYOR,
        provider=OTHER,
        affair="JM01000000121000",
        procedure="JT01010000000214",
        kind="TM00000000000002",
        items=["x"],
        issued_at=NOW,
        expires_at=NOW + dt.timedelta(seconds=expires_in_s),
    )


def reply(outcome, reason=None):
    return PermitReply(id=uuid.UUID(int=2), outcome=outcome, reference="r", decided_at=NOW, reason=reason)


@pytest.mark.parametrize("state", [InquiryState.ACCEPTED, InquiryState.PERMIT_REQUESTED])
def test_a_permit_opens_the_wait_for_an_answer(state):
    step = flow.on_permit_reply(state, reply("permitted"), permit())
    assert step.state is InquiryState.PERMITTED
    assert step.deadline == NOW + dt.timedelta(seconds=900) + flow.PERMIT_GRACE
    assert not step.final


@pytest.mark.requirement("PRV-01")
def test_permitted_without_a_verified_permit_fails():
    step = flow.on_permit_reply(InquiryState.ACCEPTED, reply("permitted"), None)
    assert (step.state, step.reason, step.final) == (InquiryState.FAILED, "permit_forged", True)


@pytest.mark.requirement("INQ-05")
def test_a_refusal_for_an_unpublished_assessment_keeps_its_reason():
    step = flow.on_permit_reply(InquiryState.ACCEPTED, reply("not_permitted", "pia_unpublished"), None)
    assert (step.outcome, step.reason) == (Outcome.NOT_PERMITTED, "pia_unpublished")


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.PROVIDED, InquiryState.ANSWERED),
        (Outcome.NO_RECORD, InquiryState.ANSWERED),
        (Outcome.REFUSED, InquiryState.REFUSED),
        (Outcome.UNDER_REVIEW, InquiryState.HELD),
    ],
)
def test_a_delivery_leads_to_its_state(outcome, state):
    step = flow.on_delivery(outcome, None, readable=True)
    assert step.state is state
    assert step.final is (outcome is not Outcome.UNDER_REVIEW)


def test_content_that_cannot_be_opened_fails_the_line():
    assert flow.on_delivery(Outcome.PROVIDED, None, readable=False).state is InquiryState.FAILED


def test_a_final_line_cannot_be_cancelled():
    with pytest.raises(Problem) as refused:
        flow.on_cancel(InquiryState.ANSWERED)
    assert refused.value.code == "already_final"
    assert flow.on_cancel(InquiryState.PERMITTED).outcome is Outcome.CANCELLED


def test_pauses_grow_and_stay_bounded():
    pauses = [flow.retry_delay_s(tries) for tries in range(40)]
    assert pauses == sorted(pauses)
    assert pauses[0] == flow.RETRY_FIRST_S
    assert pauses[-1] == flow.RETRY_LAST_S
