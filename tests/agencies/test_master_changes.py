"""Versions of the master data: proposed by one, approved by another, in force in every cell at once, rolled back."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops import certificate_life as life
from chukan.ops import masters, notices
from chukan.ops.certificates import Authority
from chukan.ops.installation import publish
from chukan.tenants import master_book as book
from chukan.tenants import masters as documents
from chukan.tenants import notices as board
from chukan.tenants.changes import Changes
from chukan.tenants.masters import Content, Master

pytestmark = [pytest.mark.requirement("SEC-02"), pytest.mark.requirement("LAW-04")]

KIND = "TM00000000000002"
GAPS = "gap_codes.csv"
FAR = dt.timedelta(days=30)


@pytest.fixture
def person(site: Any, installation: Any) -> Callable[[str], masters.Person]:
    """Issue a certificate to somebody, and read it as a command does."""

    def issue(name: str) -> masters.Person:
        folder = site.authority.folder / "clients" / name
        if not folder.exists():
            site.authority.issue_client(name)
        return masters.read_person(installation, folder / "certificate.pem", folder / "key.pem")

    return issue


@pytest.fixture(autouse=True)
async def empty_book(site: Any) -> None:
    """The cells are everybody's; versions of another test were signed by another authority."""
    for cell in site.cells:
        for table in ("master_act", "master", "notice_read", "notice"):
            await site.fetch(cell, f"DELETE FROM chukan.{table}")


async def with_a_gap(installation: Any, code: str) -> dict[str, str]:
    base = await masters.files_of(installation, await masters.base_of(installation))
    return {GAPS: base[GAPS] + f"{code},試行,trial\n"}


async def states(installation: Any) -> dict[int, str]:
    return {each.version: each.state for each in await masters.versions(installation)}


async def due(site: Any, version: int) -> None:
    """Let the instant of what waits come, up to what names this version first."""
    for cell in site.cells:
        sql = "UPDATE chukan.snapshot SET effective_at = now() WHERE number <= (SELECT min(number) FROM chukan.snapshot"
        await site.fetch(
            cell, f"{sql} WHERE convert_from(body, 'UTF8') LIKE '%master:{version}:%') AND effective_at > now()"
        )


async def test_from_proposal_to_force_and_back(site: Any, installation: Any, person: Any) -> None:
    at = installation.clock.now() + FAR
    made = await masters.propose(
        installation, person("operator.aoki"), await with_a_gap(installation, "97"), at, "改正"
    )
    assert (made.version, await states(installation)) == (1, {1: "proposed"})
    with pytest.raises(Problem, match="second_person"):
        await masters.approve(installation, person("operator.aoki"), 1)
    published = await masters.approve(installation, person("operator.baba"), 1)
    assert published.effective_at == at
    assert await states(installation) == {1: "waiting"}
    assert (await installation.common()).whole
    await due(site, 1)
    assert await states(installation) == {1: "in force"}
    assert documents.named((await installation.snapshot()).law_number) == (1, made.digest)
    back = await masters.files_of(installation, 0)
    await masters.propose(installation, person("operator.baba"), back, at, "戻す")
    await masters.approve(installation, person("operator.aoki"), 2)
    await due(site, 2)
    assert await states(installation) == {2: "in force", 1: "past"}
    assert await masters.files_of(installation, 2) == back
    acts = [(each.version, each.act, each.by) for each in await book.acts(installation.cells)]
    assert acts == [
        (1, "propose", "operator.aoki"), (1, "approve", "operator.baba"),
        (2, "propose", "operator.baba"), (2, "approve", "operator.aoki"),
    ]  # fmt: skip


async def test_the_preview_shows_rows_and_open_lines(installation: Any, person: Any) -> None:
    at = installation.clock.now() + FAR
    await masters.propose(installation, person("operator.aoki"), await with_a_gap(installation, "97"), at, "改正")
    before, after = [await masters.files_of(installation, version) for version in (0, 1)]
    found = await masters.preview(installation, before, after)
    assert [(each.file, each.added, each.removed, each.changed) for each in found.differences] == [
        (GAPS, ["97,試行,trial"], [], [])
    ]
    assert set(found.pending) == {"east", "west"}


async def test_of_two_proposals_the_second_is_proposed_anew_on_top(installation: Any, person: Any) -> None:
    at = installation.clock.now() + FAR
    for code in ("96", "97"):
        files = await with_a_gap(installation, code)
        await masters.propose(installation, person("operator.aoki"), files, at, "改正")
    await masters.approve(installation, person("operator.baba"), 1)
    with pytest.raises(Problem, match="master_state"):
        await masters.approve(installation, person("operator.baba"), 2)
    await masters.propose(installation, person("operator.aoki"), await with_a_gap(installation, "97"), at, "改正")
    await masters.approve(installation, person("operator.baba"), 3)
    assert await states(installation) == {3: "waiting", 2: "proposed", 1: "waiting"}
    assert {"96", "97"} <= {row[:2] for row in (await masters.files_of(installation, 3))[GAPS].splitlines()}


async def test_a_rejected_one_is_never_approved_and_one_that_waits_can_be_withdrawn(
    site: Any, installation: Any, person: Any
) -> None:
    at = installation.clock.now() + FAR
    aoki, baba = person("operator.aoki"), person("operator.baba")
    await masters.propose(installation, aoki, await with_a_gap(installation, "97"), at, "改正")
    await masters.reject(installation, baba, 1, "誤り")
    with pytest.raises(Problem, match="master_state"):
        await masters.approve(installation, baba, 1)
    before = (await installation.snapshot()).law_number
    await masters.propose(installation, aoki, await with_a_gap(installation, "97"), at, "改正")
    with pytest.raises(Problem, match="master_state"):
        await masters.withdraw(installation, baba, 2, "まだ")
    await masters.approve(installation, baba, 2)
    await masters.withdraw(installation, baba, 2, "延期")
    assert await states(installation) == {2: "withdrawn", 1: "rejected"}
    for cell in site.cells:
        await site.fetch(cell, "UPDATE chukan.snapshot SET effective_at = now() WHERE effective_at > now()")
    assert (await installation.snapshot()).law_number == before


async def test_other_changes_need_not_wait_for_a_version_of_next_month(
    site: Any, installation: Any, person: Any
) -> None:
    at = installation.clock.now() + FAR
    await masters.propose(installation, person("operator.aoki"), await with_a_gap(installation, "97"), at, "改正")
    await masters.approve(installation, person("operator.baba"), 1)
    published = await publish(installation, Changes().stop(kind=KIND))
    assert published.effective_at is None
    common = await installation.common()
    assert (common.settled, common.whole) == (True, True)
    assert [stop.kind for stop in common.snapshot.stopped] == [KIND]
    assert documents.named(common.snapshot.law_number) is None
    (waiting,) = common.waiting
    assert (waiting.effective_at, [stop.kind for stop in waiting.snapshot.stopped]) == (at, [KIND])
    repeated = await publish(installation, Changes().stop(kind=KIND))
    assert (repeated.changed, repeated.effective_at) == (False, None)
    await due(site, 1)
    common = await installation.common()
    assert documents.named(common.snapshot.law_number).version == 1
    assert [stop.kind for stop in common.snapshot.stopped] == [KIND]


async def test_what_lies_in_a_cell_is_never_replaced(installation: Any, person: Any) -> None:
    at = installation.clock.now() + FAR
    made = await masters.propose(
        installation, person("operator.aoki"), await with_a_gap(installation, "97"), at, "改正"
    )
    first = await book.get(installation.cells, made.digest)
    body = documents.pack(
        Content(version=1, base=0, environment="sandbox", note="別", effective_at=at, files={"a.csv": "x"})
    )
    for other in (
        Master(documents.digest_of(body), 1, body, first.proposal, None),
        first._replace(proposal=b"another"),
        first._replace(body=body),
    ):
        with pytest.raises(Problem, match="master_state"):
            await book.put(installation.cells, other)
    await book.put(installation.cells, first._replace(approval=b"first"))
    await book.put(installation.cells, first._replace(approval=b"second"))
    assert (await book.get(installation.cells, made.digest)).approval == b"first"


async def test_an_instant_that_is_not_ahead_and_a_version_without_a_change_are_refused(
    installation: Any, person: Any
) -> None:
    aoki, now = person("operator.aoki"), installation.clock.now()
    with pytest.raises(Problem, match="master_invalid"):
        await masters.propose(installation, aoki, await with_a_gap(installation, "97"), now, "改正")
    with pytest.raises(Problem, match="master_invalid"):
        await masters.propose(installation, aoki, await masters.files_of(installation, 0), now + FAR, "改正")


async def test_a_system_and_a_stranger_change_no_masters(
    site: Any, person: Any, installation: Any, tmp_path: Path
) -> None:
    with pytest.raises(Problem, match="master_invalid"):
        person("tax-system")
    other = Authority.create(tmp_path / "other", "Other", site.clock, "sandbox")
    other.issue_client("operator.aoki")
    folder = other.folder / "clients" / "operator.aoki"
    with pytest.raises(Problem, match="master_invalid"):
        masters.read_person(installation, folder / "certificate.pem", folder / "key.pem")


async def test_a_revoked_card_proposes_and_approves_nothing(site: Any, installation: Any, person: Any) -> None:
    aoki, baba = person("operator.aoki"), person("operator.baba")
    at = installation.clock.now() + FAR
    proposed = await masters.propose(installation, aoki, await with_a_gap(installation, "97"), at, "改正")
    file = site.authority.folder / life.REVOCATION_FILE
    exchange = msgspec.structs.replace(installation.settings.exchange, crl_files={"ours": file})
    installation.settings = msgspec.structs.replace(installation.settings, exchange=exchange)
    life.revoke(site.authority, [f"{aoki.chain[0].serial_number:x}"], "keyCompromise")
    life.write_list(site.authority)
    # The proposal was good when it was made. Its proposer's card is stolen by now: somebody else proposes it anew.
    with pytest.raises(Problem, match="master_invalid"):
        await masters.approve(installation, baba, proposed.version)
    with pytest.raises(Problem, match="master_invalid"):
        person("operator.aoki")
    assert person("operator.baba").name == "operator.baba"


@pytest.mark.requirement("OPS-03")
async def test_bodies_are_told_and_it_is_known_who_has_not_read_it(site: Any, installation: Any) -> None:
    cells = installation.cells
    notice, missing = await notices.publish(
        installation, board.Notice("planned", "計画停止", "保守のため停止します。", "aoki", bodies=("011002",))
    )
    assert missing == ()
    (found,) = await board.archive(cells)
    assert (found.id, found.bodies, found.read_by) == (notice, ["011002"], [])
    sets = masters.CellSets(cells.primary("west").broker)
    assert await sets.mark_notice(7, "011002", "tax", notice)
    assert await sets.mark_notice(7, "011002", "tax", notice)
    assert not await sets.mark_notice(8, "131016", "tax", notice)
    (found,) = await board.archive(cells)
    assert found.read_by == [7]
    assert notices.unread(found, [(7, "011002"), (9, "011002"), (8, "131016")]) == [9]
    (seen,) = await sets.notices(7, "011002", None, 50)
    assert seen.read_at is not None
    assert await sets.notices(8, "131016", None, 50) == []
    await board.withdraw(cells, notice, "baba", installation.clock.now())
    (seen,) = await sets.notices(7, "011002", None, 50)
    assert (seen.withdrawn_at is not None, (await board.archive(cells))[0].withdrawn_by) == (True, "baba")


async def test_a_notice_holds_nobodys_number(installation: Any) -> None:
    for text in ("123456789018", "x" * 8001, ""):
        with pytest.raises(Problem):
            await notices.publish(installation, board.Notice("general", "件名", text, "aoki"))
    assert await board.archive(installation.cells) == []


async def test_pages_of_notices_follow_one_another(installation: Any) -> None:
    made = [
        (await notices.publish(installation, board.Notice("general", f"第 {n} 号", "本文", "aoki")))[0]
        for n in range(3)
    ]
    sets = masters.CellSets(installation.cells.primary("east").broker)
    first = [row.id for row in await sets.notices(7, "011002", None, 2)]
    rest = [row.id for row in await sets.notices(7, "011002", first[-1], 2)]
    assert [*first, *rest] == made[::-1]
