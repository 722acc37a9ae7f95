"""The log: what must never reach it, whatever somebody passes."""

import asyncio
import io
import json
import logging
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from chukan import log
from chukan.errors import Problem

NAME = "山田太郎"
NUMBER = "123456789018"


class Lines:
    """What was written so far."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def last(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.text.splitlines()[-1])
        return document


@pytest.fixture
def lines() -> Iterator[Lines]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook)
    captured = Lines()
    log.configure("debug", captured.stream)
    yield captured
    log.configure()
    root.handlers[:], level, sys.excepthook = before
    root.setLevel(level)


def fail(text: str) -> None:
    raise ValueError(text)


def test_a_line_is_one_json_object_with_name_level_and_time(lines: Lines) -> None:
    log.get("sequencer").warning("falling behind", cell="east", seconds=1.5, count=3)
    assert lines.text.count("\n") == 1
    timestamp = lines.last.pop("timestamp")
    assert timestamp.endswith("Z")
    assert {name: value for name, value in lines.last.items() if name != "timestamp"} == {
        "event": "falling behind",
        "logger": "sequencer",
        "level": "warning",
        "cell": "east",
        "seconds": 1.5,
        "count": 3,
    }


@pytest.mark.requirement("TEN-01")
def test_unknown_fields_are_dropped_and_counted(lines: Lines) -> None:
    log.get("x").info("accepted", agency=42, name=NAME, addressee="1", body={"a": 1})
    assert lines.last["agency"] == 42
    assert lines.last["dropped"] == 3
    assert NAME not in lines.text
    assert "addressee" not in lines.text


@pytest.mark.parametrize(
    "value",
    [
        NUMBER,
        int(NUMBER),
        f"a{NUMBER}b",
        12345678901,
        "x" * 121,
        [NUMBER],
        {"a": NUMBER},
        b"x",
        NUMBER.encode(),
        object(),
    ],
    ids=["text", "integer", "inside", "code", "long", "list", "table", "bytes", "digits", "object"],
)
def test_a_known_field_takes_short_scalars_without_long_numbers(lines: Lines, value: object) -> None:
    log.get("x").info("accepted", reason=value, count=1)
    assert "reason" not in lines.last
    assert lines.last["dropped"] == 1
    assert lines.last["count"] == 1


@pytest.mark.parametrize("value", [True, None, 0, -5, 1.25, "closed", "0" * 10, 9_999_999_999])
def test_plain_values_stay(lines: Lines, value: object) -> None:
    log.get("x").info("accepted", reason=value)
    assert lines.last["reason"] == value
    assert "dropped" not in lines.last


def test_an_id_stays_also_when_it_consists_of_digits(lines: Lines) -> None:
    made = uuid.UUID("01234567-0123-7012-8012-012345678901")
    log.get("x").info("accepted", batch=made, line_id=str(made))
    assert lines.last["batch"] == lines.last["line_id"] == str(made)


@pytest.mark.parametrize("event", [f"query of {NAME}", f"query {NUMBER}", "a=1", "x" * 200, "", "line\nbreak"])
def test_an_event_that_was_formatted_from_a_value_is_not_printed(lines: Lines, event: str) -> None:
    log.get("x").info(event)
    assert lines.last["event"] == "unnamed event"
    assert lines.last["dropped"] == 1
    assert NAME not in lines.text
    assert NUMBER not in lines.text


def test_an_exception_is_its_type_and_place_never_its_text(lines: Lines) -> None:
    try:
        fail(NAME)
    except ValueError:
        log.get("x").exception("stage failed", stage="permit")
    assert lines.last["error"] == "ValueError"
    assert lines.last["error_at"].split()[-1].startswith(f"{__name__}:")
    assert NAME not in lines.text


def test_causes_are_named_and_a_problem_brings_its_code(lines: Lines) -> None:
    try:
        try:
            fail(NAME)
        except ValueError as error:
            raise Problem("bad_line") from error
    except Problem as problem:
        log.get("x").warning("refused", exc_info=problem)
    assert lines.last["error"] == "Problem < ValueError"
    assert lines.last["code"] == "bad_line"
    assert NAME not in lines.text


def test_a_library_is_heard_but_not_quoted(lines: Lines) -> None:
    try:
        fail(NAME)
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling request from %s", NAME)
    assert lines.last["event"] == "library message"
    assert (lines.last["logger"], lines.last["level"], lines.last["error"]) == ("aiohttp.server", "error", "ValueError")
    assert NAME not in lines.text


async def test_an_exception_that_nobody_awaited_is_not_quoted(lines: Lines) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": NAME, "exception": ValueError(NAME)})
    assert (lines.last["logger"], lines.last["error"]) == ("asyncio", "ValueError")
    assert NAME not in lines.text


def test_an_uncaught_exception_is_logged_not_printed(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        fail(NAME)
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert lines.last["event"] == "uncaught exception"
    assert lines.last["error"] == "ValueError"
    assert NAME not in lines.text + capsys.readouterr().err


def test_an_interrupt_is_no_event(lines: Lines) -> None:
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert lines.text == ""


def test_the_level_is_a_threshold_and_an_unknown_one_is_refused(lines: Lines) -> None:
    log.configure("warning", lines.stream)
    log.get("x").info("quiet")
    assert lines.text == ""
    with pytest.raises(KeyError):
        log.configure("loud")
