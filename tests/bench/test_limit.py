"""The limit: what pgbench is given to run, and what is taken from its report."""

import re
import uuid
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.ops.bench import limit, machine
from chukan.ops.bench.statements import Asked, Asking, Terms, chain, sequencer
from chukan.ops.local.binaries import Binaries
from chukan.tenants.rows import Grant
from chukan.tenants.states import Side
from chukan.tenants.widths import Widths

WIDTHS = Widths(request=1, permit_request=2, permit=3, notice=4, sent_answer=5, answer=6, record=7)
GRANTS = [[Grant(side, 5, 1)] for side in Side]
ASKING = [Asking(1, b"\x01" * 32), Asking(2, b"\x02" * 32)]
ASKED = [Asked(3, b"\x03" * 32, b"\x04" * 32, 1)]
REPORT = """pgbench (18.6)
transaction type: multiple scripts
number of transactions actually processed: {done}
number of failed transactions: {failed} (0.000%)
latency average = 9.117 ms
tps = 438.745 (without initial connection time)
"""
STEPS = [
    "find_codes", "accept", "inquiry_views",
    "take_inquiries", "settle_inquiries", "lookup", "provide_notices", "take_provisions", "settle_provisions",
    "read_requests", "deliver_answers",
    "inquiry_views", "inquiry_views", "collect",
]  # fmt: skip


def called(script: str) -> list[str]:
    return re.findall(r"FROM chukan\.(\w+)\(", script)


def test_a_list_goes_through_every_step_of_a_round_trip_in_its_sets() -> None:
    script = chain(Terms(size=2, sets=3, single=False, widths=WIDTHS), ASKING, ASKED, GRANTS)
    assert called(script) == [*STEPS[:3], *STEPS[3:11] * 3, *STEPS[11:]]


def test_single_lines_are_looked_at_and_collected_one_by_one() -> None:
    found = called(chain(Terms(size=3, sets=1, single=True, widths=WIDTHS), ASKING, ASKED, GRANTS))
    assert found.count("accept") == found.count("provide_notices") == found.count("deliver_answers") == 1
    assert found.count("collect") == 3
    assert found.count("inquiry_views") == 9


def test_every_statement_ends_pgbench_unless_all_of_its_lines_are_good() -> None:
    script = chain(Terms(size=2, sets=2, single=False, widths=WIDTHS), ASKING, ASKED, GRANTS)
    statements = [line for line in script.splitlines() if "FROM chukan." in line]
    assert all("1 / (" in line for line in statements)
    assert all(line.endswith((";", r"\gset")) for line in statements)


def test_one_agency_on_both_sides_has_ids_of_its_own_on_each() -> None:
    script = chain(Terms(size=2, sets=1, single=False, widths=WIDTHS), ASKING, ASKED, GRANTS)
    by_function = dict(re.findall(r"FROM chukan\.(\w+)(\(.*)", script))
    assert ":others" in by_function["provide_notices"]
    assert ":ids" not in by_function["provide_notices"]
    assert ":others" not in by_function["deliver_answers"]


def test_the_sequencer_pauses_when_nothing_waits() -> None:
    assert called(sequencer()) == ["sequence"]
    assert r"\sleep 500 ms" in sequencer()


def test_the_rate_of_a_report_counts_lines() -> None:
    assert limit.per_s(REPORT.format(done=2632, failed=0), 100) == pytest.approx(43874.5)


@pytest.mark.parametrize(
    "report",
    [REPORT.format(done=10, failed=1), REPORT.format(done=0, failed=0), "pgbench: error: connection failed", ""],
)
def test_a_report_of_a_bad_run_is_no_limit(report: str) -> None:
    with pytest.raises(ValueError, match="good run"):
        limit.per_s(report, 1)


@pytest.mark.parametrize(
    ("in_flight", "lines", "clients"), [(32, 4, 4), (8, 1, 4), (1, 1, 1), (4000, 1000, 2), (64, 1, limit.CLIENTS_MAX)]
)
def test_the_limit_has_as_many_lines_on_their_way_within_bounds(in_flight: int, lines: int, clients: int) -> None:
    assert limit.clients_for(in_flight, lines) == clients


def test_without_pgbench_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "find_binaries", lambda _prefer, *, only: Binaries("debian", tmp_path, 15))
    with pytest.raises(Problem) as refused:
        limit.find_pgbench()
    assert refused.value.code == "runtime_missing"
    assert "postgresql" in str(refused.value.expected)


def test_the_machine_is_described_by_numbers() -> None:
    assert machine.memory_bytes("MemFree: 1 kB\nMemTotal:       2048 kB\n") == 2048 * 1024
    found = machine.look()
    assert found.cores >= 1
    assert found.memory_mib > 0
    assert len(found.load_before) == 3
    with pytest.raises(ValueError, match="memory"):
        machine.memory_bytes(str(uuid.UUID(int=0)))
