"""How durable a commit is: judged by what standbys have flushed, and by nothing that was merely configured."""

from chukan.replication.durability import Durability, Evidence, Standing, Standings, expected, judge, reached

CENTRES = {"e1": "east", "e2": "east", "ew1": "west", "ew2": "west"}
NAMES = "FIRST 2 (e2,ew1)"


def said(at: float, flushed: int, *standbys: Standing, leader: str = "e1", waits_for: str = NAMES) -> Standings:
    return Standings(leader, flushed, waits_for, standbys, at)


def standing(name: str, flushed: int, *, waited_for: bool = True, pid: int = 7) -> Standing:
    return Standing(name, pid, waited_for, flushed)


def test_it_is_where_everything_has_been_flushed() -> None:
    assert judge(Evidence(), said(0, 100, standing("ew1", 100)), CENTRES)[0] is Durability.TWO_CENTRES
    assert judge(Evidence(), said(0, 100, standing("ew2", 100, waited_for=False)), CENTRES)[0] is Durability.TWO_CENTRES
    assert (
        judge(Evidence(), said(0, 100, standing("e2", 100), standing("ew1", 99)), CENTRES)[0] is Durability.ONE_CENTRE
    )
    assert judge(Evidence(), said(0, 100), CENTRES)[0] is Durability.ONE_DISK
    assert judge(Evidence(), said(0, 100, standing("backup", 100)), CENTRES)[0] is Durability.ONE_DISK
    # After a switchover to the west, the east is the other centre.
    assert judge(Evidence(), said(0, 100, standing("e1", 100), leader="ew1"), CENTRES)[0] is Durability.TWO_CENTRES


def test_a_sync_state_alone_proves_nothing() -> None:
    assert judge(Evidence(), said(0, 100, standing("ew1", 50)), CENTRES)[0] is Durability.ONE_DISK


def test_under_load_a_standby_that_is_waited_for_is_always_a_little_behind_and_counts() -> None:
    _, evidence = judge(Evidence(), said(0.0, 100, standing("ew1", 90)), CENTRES)
    found, evidence = judge(evidence, said(0.1, 200, standing("ew1", 190)), CENTRES)
    assert found is Durability.ONE_DISK, "it has flushed what there was before; from now on it is proven"
    found, evidence = judge(evidence, said(0.2, 300, standing("ew1", 290)), CENTRES)
    assert found is Durability.TWO_CENTRES
    for odd in (
        said(0.3, 400, standing("ew1", 390, pid=8)),  # another connection
        said(0.3, 400, standing("ew1", 390, waited_for=False)),  # no longer waited for
        said(0.3, 400, standing("ew1", 390), waits_for="e2"),  # the leader waits for others
        said(0.3, 400, standing("ew1", 390), leader="e2"),  # another leader
        said(9.9, 400, standing("ew1", 390)),  # evidence of long ago
        said(0.3, 400),  # gone
    ):
        assert judge(evidence, odd, CENTRES)[0] is Durability.ONE_DISK


def test_what_was_there_at_the_first_look_may_arrive_by_the_next() -> None:
    first = said(0.0, 100, standing("ew1", 90), standing("e2", 100))
    assert expected(first, CENTRES), "one in the other centre is waited for"
    assert not expected(said(0.0, 100, standing("ew1", 90, waited_for=False), standing("e2", 90)), CENTRES)
    assert reached(first, said(0.1, 200, standing("ew1", 100)), CENTRES)
    assert not reached(first, said(0.1, 200, standing("ew1", 99), standing("e2", 200)), CENTRES)
    assert not reached(first, said(0.1, 200, standing("ew1", 200), leader="e2"), CENTRES)
    assert not reached(first, said(0.1, 200, standing("backup", 200)), CENTRES)
