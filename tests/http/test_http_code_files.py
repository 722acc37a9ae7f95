"""Acquisition by file over HTTP: numbers in, refused by line, bounded, status and acquisition number out."""

from typing import Any

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.platform.http.code_files import read_lines

CITY = "1310100000000001"


async def _post(served: Any, content: bytes, kind: str = "text/plain; charset=utf-8") -> tuple[int, dict[str, Any]]:
    headers = {"Idempotency-Key": str(SystemChance(SystemClock()).uuid7()), "Content-Type": kind}
    async with (
        served.client() as client,
        client.post(served.url("/code-files?name=N1"), data=content, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


@pytest.mark.requirement("SYM-07", "CON-03")
async def test_a_file_of_numbers_is_taken_and_its_result_fetched_from_any_line_on(served: Any) -> None:
    content = b"000000000000001\r\n000000000000002\r\nx\r\n000000000000004\r\n"
    status, file = await _post(served, content)
    assert (status, file["lines"], file["refused"], file["statuses"]) == (202, 3, 1, {"requested": 3})
    ((_, agency, sent),) = served.exchange.calls
    assert (agency, sent.name) == (CITY, "N1")
    async with served.client() as client:
        async with client.get(served.url(f"/code-files/{file['id']}")) as answer:
            assert (await answer.json())["lines"] == 3
        async with client.get(served.url(f"/code-files/{file['id']}/result?after=2")) as answer:
            assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
            rows = (await answer.text()).split("\r\n")
    assert rows[0] == "line,status,acquisition_number,problem"
    assert [row.split(",")[0] for row in rows[1:]] == ["3", "4", ""]


@pytest.mark.requirement("CON-04")
async def test_a_file_beyond_the_limit_is_refused_with_the_limit(served: Any) -> None:
    status, problem = await _post(served, b"000000000000001\r\n" * 10_001)
    assert (status, problem["code"], problem["limit"]) == (413, "too_many_lines", 10_000)
    status, problem = await _post(served, b"000000000000001\r\n", "text/plain")
    assert (status, problem["code"]) == (415, "unsupported_encoding")
    assert served.exchange.calls == []


@pytest.mark.requirement("SYM-07")
def test_a_line_is_fifteen_digits_and_nothing_else() -> None:
    written = ["000000000000001", "", "00000000000001", "0000000000000001", "00000000000000x", " 00000000000001"]
    lines = list(read_lines("".join(f"{line}\r\n" for line in written).encode()))
    assert (lines[0].number, lines[0].addressee) == (1, "000000000000001")
    assert [line.number for line in lines] == [1, 3, 4, 5, 6]
    assert {line.problem.code for line in lines[1:] if line.problem} == {"bad_line"}
    assert all(line.problem is not None for line in lines[1:])
