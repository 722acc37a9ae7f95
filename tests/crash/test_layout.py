"""What the file customer writes the platform reads, line by line; what it reads of a cut result is true."""

import datetime as dt
import uuid

import pytest

from chukan.errors import Problem
from chukan.platform.exchange.views import refused_view
from chukan.platform.http.query_lines import ResultWriter, read_parts
from chukan.platform.law import Law
from chukan.platform.wire.agency import AnswerContent, AnsweredCopy, Gap, QueryLine, QueryLineView
from chukan.platform.wire.network import Condition
from chukan.tests.crash import layout

HERE, THERE, TAX = "9901131016000001", "9901271004000001", "TM00000000000002"
LAW = Law.load()
AT = dt.datetime(2027, 2, 3, 9, 30)  # noqa: DTZ001 (what a clerk's clock shows)


def _query(department: str, condition: Condition, *, withheld: bool = False) -> QueryLine:
    return QueryLine(
        addressee="000000000000042",
        kind=TAX,
        provider=THERE,
        affair="JM01000000121000",
        procedure="JT01010000000214",
        department=department,
        condition=condition,
        withheld=withheld,
    )


def _view(number: int, outcome: str, copies: int = 0) -> QueryLineView:
    """A line whose answer brings copies with a value that must be quoted, and a gap."""
    day = dt.date(2026, 6, 1)
    version = max(version for kind, version in LAW.layouts if kind == TAX)
    found = LAW.layout(TAX, version)
    assert found is not None
    first, second = list(found.items)[:2]
    content = [
        AnsweredCopy(
            layout=version, effective_from=day, period=str(2020 + n), items={first: "税, 額", second: Gap(gap="99")}
        )
        for n in range(copies)
    ]
    return QueryLineView(
        line=number - 1,
        state="collected",
        outcome=outcome,
        id=uuid.uuid4(),
        content=AnswerContent(kind=TAX, copies=content) if copies else None,
    )


@pytest.mark.parametrize("charset", layout.CHARSETS)
def test_a_file_is_read_as_the_queries_that_were_written(charset: str) -> None:
    good = [
        _query("税務課", Condition()),
        _query("FUKUSHI", Condition(period="1", year="2026"), withheld=True),
        _query("保険年金課", Condition(period="1", year="2022")),
    ]
    lines = [*good, _query("税務課", Condition(period="1"))]
    ((*read, refused),) = read_parts(layout.written(lines, HERE, charset, AT), charset, HERE)
    assert [line.line for line in read] == good
    assert refused.problem is not None
    assert (refused.problem.code, refused.problem.pointer) == ("bad_condition", "/16")


@pytest.mark.parametrize("charset", layout.CHARSETS)
def test_a_result_that_is_cut_off_anywhere_is_continued_behind_its_last_whole_line(charset: str) -> None:
    refused = refused_view(2, Problem("bad_line"))
    views = [_view(1, "provided", copies=2), _view(2, "no_record"), refused, _view(4, "provided", copies=1)]
    writer = ResultWriter(LAW, charset, [TAX])

    def sent(after: int) -> bytes:
        return writer.header() + writer.page([view for view in views if view.line >= after])

    once = layout.Result(charset)
    once.add(sent(0))
    once.end(cut=False)
    assert [(told.line, told.outcome, told.content is None) for told in once.lines()] == [
        (0, "provided", False),
        (1, "no_record", True),
        (2, "bad_request", True),
        (3, "provided", False),
    ]
    for end in range(0, len(sent(0)), 5):
        result = layout.Result(charset)
        result.add(sent(0)[:end])
        result.end(cut=True)
        result.add(sent(result.after))
        result.end(cut=False)
        assert result.lines() == once.lines()


def test_a_result_that_says_two_things_of_a_line_is_seen_to_do_so() -> None:
    writer = ResultWriter(LAW, "utf-8", [TAX])
    result = layout.Result("utf-8")
    result.add(writer.header() + writer.page([_view(1, "provided"), _view(1, "no_record"), _view(1, "provided")]))
    result.end(cut=False)
    assert [told.outcome for told in result.lines()] == ["provided", "no_record", "provided"]
