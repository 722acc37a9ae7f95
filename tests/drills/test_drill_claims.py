"""What is demanded of failed requests: none before the nodes' turn, and only the moving agency's, politely refused."""

import msgspec
import pytest

from chukan.ops.drills import claims
from chukan.ops.drills.calls import _told
from chukan.ops.drills.journal import Account, Entry
from chukan.ops.drills.scenario import find
from chukan.ops.drills.verdict import Course, judge
from chukan.tests.drills.stories import EAST, GAPS, WEST, asker, giver, good, register, truth

POLITE = {"status": 503, "code": "agency_moved", "retry_after_s": 1}


def refused(n: int, at: float, **told: object) -> list[Entry]:
    sent, ended = register(n, at, 9, event="in_doubt")
    return [sent, msgspec.structs.replace(ended, **told)]


def test_a_reply_tells_when_to_come_back() -> None:
    assert _told(503, b"", {"Retry-After": "7"}).retry_after_s == 7
    assert _told(503, b"", {"Retry-After": "soon"}).retry_after_s == 0
    assert _told(503, b"", {}).retry_after_s == 0


@pytest.mark.parametrize(("sent_at", "held"), [(4.9, False), (5.0, True)])
def test_no_request_may_fail_before_the_nodes_turn(sent_at: float, *, held: bool) -> None:
    assert claims.none_before([*good(), asker(refused(3, sent_at))], 5.0) is held
    # One of which nothing more is known has failed as well.
    assert claims.none_before([*good(), asker(refused(3, sent_at)[:1])], 5.0) is held
    assert claims.none_before(good(), None) is None


@pytest.mark.parametrize(
    ("account", "held"),
    [
        (asker(refused(3, 5.0, **POLITE)), True),
        (asker(refused(3, 5.0, **POLITE | {"retry_after_s": 0})), False),
        (asker(refused(3, 5.0, **POLITE | {"code": "no_primary"})), False),
        (asker(refused(3, 5.0)), False),
        (asker(refused(3, 5.0)[:1]), False),
        (giver(refused(3, 5.0, **POLITE)), False),
    ],
)
def test_only_the_agency_that_moves_may_be_refused(account: Account, *, held: bool) -> None:
    assert claims.only_of([*good(), account], EAST) is held
    assert claims.only_of(good(), "") is None


def test_how_long_the_agency_was_not_served_is_what_its_own_client_saw() -> None:
    accounts = [giver(register(1, 1.0, 1), refused(2, 2.0, **POLITE), register(3, 6.5, 2)), *good()[:1]]
    assert claims.unserved_s(accounts, WEST, 0.5, 7.0) == 5.5
    assert claims.unserved_s(accounts, "", 0.5, 7.0) is None


def test_the_verdict_of_a_move_says_how_long_it_took_and_fails_where_others_suffer() -> None:
    scenario = find("agency-move")
    course = Course(0.0, 6.0, moved_agency=WEST)
    verdict = judge(scenario, good(), truth(), course, GAPS)
    assert verdict.passed
    assert verdict.moving_s == 2.0
    hurt = judge(scenario, [*good(), asker(refused(3, 5.0, **POLITE))], truth(), course, GAPS)
    assert not hurt.passed
    assert [claim.en for claim in hurt.claims if not claim.held] == [
        "only the agency that moves is refused, and told when to come back"
    ]
    assert not judge(scenario, good(), truth(), Course(0.0, 6.0), GAPS).passed
    slow = judge(scenario, good(), truth(), Course(0.0, 40.0, moved_agency=WEST), GAPS)
    assert "the agency that moves not served" in [bound.what for bound in slow.bounds if not bound.held]


def test_the_verdict_of_a_rolling_restart_forgives_what_fails_after_the_nodes_turn_only() -> None:
    scenario = find("rolling-restart")
    accounts = [*good(), asker(refused(3, 5.0))]
    assert judge(scenario, accounts, truth(), Course(0.0, 6.0, nodes_from=4.5), GAPS).passed
    assert not judge(scenario, accounts, truth(), Course(0.0, 6.0, nodes_from=5.5), GAPS).passed
    assert not judge(scenario, good(), truth(), Course(0.0, 6.0), GAPS).passed
