"""Acquisition by file through exchange, network and registry network: the same result as online, and nothing twice."""

import asyncio
import hashlib
import uuid
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops.sandbox.endpoints import pause
from chukan.platform.exchange.code_files import CodeFileLine
from chukan.platform.exchange.query_files import SentFile
from chukan.platform.peer import NetworkPeer, NetworkTrouble
from chukan.platform.wire.agency import CodeAsk, CodeLine, CodeStatus
from chukan.platform.wire.files import CodeFile

ASKS, GIVES = "9901131121000001", "9901011002000001"


async def put(nation: Any, lines: list[CodeFileLine], *, via: str = "east", name: str = "C-1") -> CodeFile:
    digest = hashlib.sha256(repr(lines).encode()).digest()
    sent = SentFile(name, "utf-8", digest, str(uuid.uuid4()), name.encode() + digest)
    return await nation.sites[via].exchange.code_files.put(nation.agency(ASKS), sent, lines)


async def result(nation: Any, file: uuid.UUID, after: int = 0) -> list[CodeStatus]:
    found = await nation.west.code_files.result(nation.agency(ASKS), file, after)
    return [status async for page in found.pages for status in page]


@pytest.mark.requirement("SYM-07", "CON-03")
async def test_a_file_gives_the_same_result_as_the_same_numbers_online(nation: Any) -> None:
    people = [f"{n:015d}" for n in range(1, 1203)]
    online = CodeAsk(lines=[CodeLine(addressee=person) for person in people[:2]])
    before = (await nation.east.codes.ask(nation.agency(ASKS), online, "key-00001")).lines
    lines = [CodeFileLine(n, person) for n, person in enumerate(people, start=1)]
    lines.append(CodeFileLine(1203, problem=Problem("bad_line", line=1203)))
    lines.append(CodeFileLine(1204, people[0]))
    file = await put(nation, lines)
    assert (file.state, file.lines, file.refused, file.statuses) == ("accepted", 1203, 1, {"requested": 1203})
    statuses = await result(nation, file.id)
    assert [status.line for status in statuses] == list(range(1, 1205))
    numbers = [status.acquisition_number for status in statuses]
    assert numbers[:2] == [status.acquisition_number for status in before]
    assert numbers[1203] == numbers[0]
    assert (statuses[1202].status, numbers[1202]) == ("refused", None)
    assert len(set(numbers[:1202])) == 1202
    again = await put(nation, lines, via="west")
    assert again.id == file.id
    assert [status.acquisition_number for status in await result(nation, file.id)] == numbers
    with pytest.raises(Problem, match="file_conflict"):
        await put(nation, lines[:5])

    # What the body's own registry system hands over becomes active, as online.
    pairs = [(number, f"99{n:08d}1") for n, number in enumerate(numbers[:3]) if number is not None]
    assert await nation.registry.hand_over(pairs) == 3
    async with asyncio.timeout(30):
        while (await nation.west.code_files.get(nation.agency(ASKS), file.id)).statuses.get("active") != 4:
            await pause(0.05, asyncio.Event())
    first, *_, last = await result(nation, file.id, after=0)
    assert [(status.status, status.acquisition_number) for status in (first, last)] == [("active", None)] * 2
    assert [status.line for status in await result(nation, file.id, after=1200)] == [1201, 1202, 1203, 1204]


@pytest.mark.requirement("SYM-07")
async def test_a_file_that_met_no_network_is_finished_by_sending_it_again(nation: Any, monkeypatch: Any) -> None:
    lines = [CodeFileLine(n, f"{n:015d}") for n in range(1, 1504)]
    peer, sizes = nation.sites["east"].peer, []

    async def away(items: Any) -> Any:
        """The network is gone after the first thousand."""
        sizes.append(len(items))
        if len(sizes) > 1:
            raise NetworkTrouble("unreachable")
        return await NetworkPeer.acquisitions(peer, items)

    with monkeypatch.context() as patched:
        patched.setattr(peer, "acquisitions", away)
        with pytest.raises(Problem, match="network_unavailable"):
            await put(nation, lines)
    assert sizes == [1000, 503]
    file = await put(nation, lines, via="west")
    assert (file.state, file.statuses) == ("accepted", {"requested": 1503})
    numbers = {status.acquisition_number for status in await result(nation, file.id)}
    assert len(numbers) == 1503
    assert (await nation.network.state()).open_acquisitions == 1503
    for code in (GIVES, ASKS):
        service = nation.east.code_files if code == GIVES else nation.east.files
        with pytest.raises(Problem, match="not_found"):
            await service.get(nation.agency(code), file.id)


async def test_a_files_numbers_rest_sealed(nation: Any) -> None:
    file = await put(nation, [CodeFileLine(1, "000000000000042")], name="SECRET")
    async with nation.east.door(nation.agency(ASKS)) as partition:
        row = await partition.fetchrow(f"SELECT * FROM {partition.table('files')} WHERE id = $1", file.id)
    assert "0000000042" not in repr(dict(row))
    assert "SECRET" not in repr(dict(row))
