"""Message evidence stands when content is gone: on both sides, by the network's signatures, bound to the records."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.clock import SystemClock, today_jst
from chukan.ops import cli
from chukan.platform.message_check import MessageReport, check_messages
from chukan.platform.wire.agency import ReviewDecision, ReviewPrepare
from chukan.tenants import evidence_file
from chukan.tenants.checkpoint import LOG, Key
from chukan.tenants.evidence_export import messages_of
from chukan.tenants.evidence_file import Header, LeafLine, Line, ListLine, MessageLine
from chukan.tenants.partition import schema_name
from chukan.tenants.records import open_whole, record_row
from chukan.tenants.retention import kept_from
from chukan.tests.support.nation import ASKS, GIVES_WEST

pytestmark = pytest.mark.requirement("TXR-04")
change = msgspec.structs.replace


async def lines_of(nation: Any, code: str) -> list[Line]:
    """The records of an agency as leaf lines, and their messages as an export has them."""
    agency, keys = nation.agency(code), nation.keys(code)

    def door() -> Any:
        return nation.east.door(agency)

    async with door() as partition:
        rows = await partition.fetch(f"SELECT * FROM {partition.table('records')} ORDER BY at, id")
    opened = [open_whole(keys, record_row(row)) for row in rows]
    leaves: list[Line] = [
        LeafLine(position=n, data=b"", hash=b"", salt=each.salt, record=each.canonical)
        for n, each in enumerate(opened, 1)
    ]
    return leaves + await messages_of(door, [row["id"] for row in rows], keys)


def checked(nation: Any, lines: list[Line], **given: Any) -> MessageReport:
    return check_messages(lines, [nation.signing["network"][2].public_key()], **given)


def codes(report: MessageReport) -> set[str]:
    return {each.code for each in report.findings}


async def receipted(nation: Any, code: str, messages: int = 2) -> None:
    """Wait until the receipt of an agency's answer is kept."""
    agency = nation.agency(code)

    async def state() -> str:
        async with nation.east.door(agency) as partition:
            count = await partition.fetchval(
                f"SELECT count(*) FROM {partition.table('messages')} WHERE line IS NOT NULL"
            )
        return "kept" if count >= messages else "not yet"

    await nation.until(state, "kept")


async def test_what_both_sides_had_of_a_provision_verifies_after_the_content_is_purged(
    nation: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    addressee = await nation.person(ASKS, GIVES_WEST)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES_WEST)])
    await nation.answered(ASKS, batch)
    await receipted(nation, GIVES_WEST)
    mine = checked(nation, await lines_of(nation, ASKS), need_messages=True)
    assert (mine.sound, mine.permits, dict(mine.bound)) == (True, 1, {"answer": 1})
    theirs = checked(nation, await lines_of(nation, GIVES_WEST), need_messages=True)
    assert (theirs.sound, theirs.permits, dict(theirs.bound)) == (True, 1, {"notice": 1})
    assert dict(theirs.others) == {"receipt": 1}
    # The content goes, and with it the answer as it was received; the messages stay, and show the same.
    admin = await nation.admin(nation.databases["east"])
    for table in ("answers", "permits"):
        await admin.execute(f"DELETE FROM {schema_name(nation.agency(ASKS).number)}.{table}")
    await admin.close()
    assert checked(nation, await lines_of(nation, ASKS), need_messages=True) == mine
    await bent_in_every_way(nation, await lines_of(nation, ASKS), await lines_of(nation, GIVES_WEST))
    said = verified(nation, tmp_path, await lines_of(nation, GIVES_WEST), capsys)
    assert (said["sound"], said["bound"], said["others"]) == (True, {"notice": 1}, {"receipt": 1})
    assert not no_common_values(await lines_of(nation, ASKS), await lines_of(nation, GIVES_WEST))


def verified(nation: Any, folder: Path, lines: list[Line], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What ``chukan records verify --network-key`` says of the messages in a file."""
    file, keys = folder / "records.jsonl", folder / "keys.txt"
    file.write_bytes(b"".join(evidence_file.encode([Header(origin="log", of="log", records=True), *lines])))
    keys.write_text(Key.of("log", LOG, Ed25519PrivateKey.generate()).text() + "\n")
    network = str(nation.signing["network"][1])
    command = ["records", "verify", str(file), "--keys", str(keys), "--network-key", network, "--need-messages"]
    assert cli.run([*command, "--json"]) == 1, "no checkpoint stands in this file: that is the log's own check"
    told = json.loads(capsys.readouterr().out)["messages"]
    assert cli.run(command) == 1
    assert "bound to records" in capsys.readouterr().out
    assert cli.run([*command[:5], "--network-key", str(keys)]) == 2
    capsys.readouterr()
    return dict(told)


def no_common_values(mine: list[Line], theirs: list[Line]) -> set[bytes]:
    """Digests, signatures and nonces that stand on both sides."""

    def values(lines: list[Line]) -> set[bytes]:
        found = set()
        for each in lines:
            if isinstance(each, ListLine):
                found |= {each.list.digests[at : at + 32] for at in range(0, len(each.list.digests), 32)}
            elif isinstance(each, MessageLine) and each.message.nonce is not None:
                found.add(each.message.nonce)
        return found

    assert values(mine)
    return values(mine) & values(theirs)


async def bent_in_every_way(nation: Any, mine: list[Line], theirs: list[Line]) -> None:
    record, kept, answer = (next(e for e in mine if isinstance(e, kind)) for kind in (LeafLine, ListLine, MessageLine))
    others = Ed25519PrivateKey.generate().public_key()
    assert codes(check_messages(mine, [others])) >= {"message_list"}

    def mended(*lines: Line) -> set[str]:
        return codes(checked(nation, list(lines), need_messages=True))

    flipped = bytes([kept.list.digests[0] ^ 1]) + kept.list.digests[1:]
    assert "message_list" in mended(record, change(kept, list=change(kept.list, digests=flipped)), answer)
    assert mended(record) == {"message_missing"}
    assert "message_alone" in mended(kept, answer)
    assert mended(record, answer) == {"message_place"}
    told, permit = answer.message, answer.message.permit
    for bent, code in (
        (change(told, place=999), "message_place"),
        (change(told, place=None), "message_place"),
        (change(told, nonce=bytes(32)), "message_binding"),
        (change(told, nonce=None), "message_binding"),
        (change(told, nonce=None, statement=None), "message_binding"),
        (change(told, statement=change(told.statement, received=bytes(32))), "message_binding"),
        (change(told, permit=None), "message_binding"),
        (change(told, permit=change(permit, signature=bytes(64))), "message_permit"),
        (change(told, permit=change(permit, leaf=bytes(32))), "message_permit"),
        (change(told, permit=change(permit, body=b"{}")), "message_permit"),
    ):
        assert mended(record, kept, change(answer, message=bent)) == {code}
    # A receipt of another line does not pass for this one's.
    at = next(n for n, e in enumerate(theirs) if isinstance(e, MessageLine) and e.message.what == "receipt")
    receipt = theirs[at]
    assert isinstance(receipt, MessageLine)
    foreign = change(receipt, record=answer.record)
    assert mended(record, kept, answer, theirs[at - 1], foreign) == {"message_place"}
    assert "message_place" in codes(
        checked(nation, [*theirs[:at], change(receipt, message=change(receipt.message, item=b"{}")), *theirs[at + 1 :]])
    )
    assert "message_place" in codes(
        checked(nation, [*theirs[:at], change(receipt, message=change(receipt.message, item=None)), *theirs[at + 1 :]])
    )
    # Another record's messages do not serve for a record that says otherwise: its salt is another one.
    assert mended(change(record, salt=bytes(32)), kept, answer) == {"message_binding"}


async def test_messages_go_with_their_record_after_seven_years(nation: Any) -> None:
    """The line is held and decided by officers: its record is bound to what they sent."""
    addressee = await nation.person(ASKS, GIVES_WEST, review=True)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES_WEST)])
    provider, reviews = nation.agency(GIVES_WEST), nation.west.reviews
    review = await nation.until_some(reviews.list, provider)
    await reviews.prepare(provider, nation.officer(GIVES_WEST, "first"), review.id, ReviewPrepare(decision="provide"))
    await reviews.approve(provider, nation.officer(GIVES_WEST, "second"), review.id, ReviewDecision())
    await nation.until(lambda: nation.state_of(ASKS, batch), "answered")
    await receipted(nation, GIVES_WEST, 3)
    held = checked(nation, await lines_of(nation, GIVES_WEST), need_messages=True)
    assert (held.sound, dict(held.bound), held.permits) == (True, {"decision": 1}, 1)
    assert dict(held.others) == {"notice": 1, "receipt": 1}
    assert dict(checked(nation, await lines_of(nation, ASKS)).bound) == {"answer": 1}

    agency = nation.agency(ASKS)
    schema, sets = schema_name(agency.number), nation.east.sets["east"]
    admin = await nation.admin(nation.databases["east"])

    async def left() -> int:
        return await admin.fetchval(f"SELECT count(*) FROM {schema}.messages")

    async def expire() -> None:
        before = kept_from(today_jst(SystemClock()))
        assert await sets.expire_messages(agency.number - 1, before, agencies=1) == agency.number

    there = await left()
    assert there >= 2
    await admin.execute(f"UPDATE {schema}.messages SET at = at - interval '8 years'")
    await expire()
    assert await left() == there, "the record is still kept, and so is what proves it"
    async with admin.transaction():
        await admin.execute("SET LOCAL session_replication_role = replica")
        await admin.execute(f"DELETE FROM {schema}.records")
        await admin.execute("DELETE FROM chukan.inquiry_work WHERE agency = $1", agency.number)
    await expire()
    assert await left() == 0
    await admin.close()
