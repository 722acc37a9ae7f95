"""The error registry: what a caller may rely on."""

import re

import pytest

from chukan.errors import REGISTRY, ErrorKind, Problem, Side

JAPANESE = re.compile(r"[ぁ-んァ-ヶ一-龠]")
TRY_LATER = {429, 503, 504}


def kinds() -> list[ErrorKind]:
    return list(REGISTRY.values())


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.code)
def test_every_entry_tells_both_readers_what_happened_and_what_to_do(kind: ErrorKind) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
    assert 400 <= kind.status < 600
    for text in (kind.title_ja, kind.action_ja):
        assert JAPANESE.search(text)
    for text in (kind.title_en, kind.action_en):
        assert text.isascii() or "…" in text
        assert len(text) > 8
    assert kind.action_ja.endswith("。")
    assert kind.action_en.endswith(".")


def test_what_has_to_be_tried_later_says_that_it_may_be() -> None:
    assert [kind.code for kind in kinds() if kind.status in TRY_LATER and not kind.retryable] == []


def test_a_code_is_its_own_key_and_the_registry_cannot_be_changed() -> None:
    assert all(code == kind.code for code, kind in REGISTRY.items())
    with pytest.raises(TypeError):
        REGISTRY["no_code"] = REGISTRY["busy"]  # type: ignore[index]


def test_an_unregistered_code_is_refused_when_it_is_raised_not_when_it_is_read() -> None:
    with pytest.raises(KeyError):
        Problem("no_such_code")


def test_the_text_of_a_problem_is_its_code_alone() -> None:
    problem = Problem("bad_line", pointer="/lines/3/addressee", line=4, expected="15 digits")
    assert str(problem) == "bad_line"
    assert repr(problem) == "Problem('bad_line')"


def test_the_document_holds_what_was_given_and_nothing_else() -> None:
    document = Problem("rate_limited", retry_after_s=7).as_dict()
    assert document == {
        "type": "urn:chukan:error:rate_limited",
        "title": REGISTRY["rate_limited"].title_ja,
        "title_en": "The agency has used up its share",
        "status": 429,
        "code": "rate_limited",
        "side": "agency",
        "retryable": True,
        "action": REGISTRY["rate_limited"].action_ja,
        "action_en": REGISTRY["rate_limited"].action_en,
        "retry_after_s": 7,
    }


def test_members_that_are_zero_are_given() -> None:
    document = Problem("too_large", pointer="", line=0, limit=0, expected="").as_dict()
    assert {name: document[name] for name in ("pointer", "line", "limit", "expected")} == {
        "pointer": "",
        "line": 0,
        "limit": 0,
        "expected": "",
    }


def test_each_side_that_may_have_to_act_appears() -> None:
    assert {kind.side for kind in kinds()} >= {Side.AGENCY, Side.PLATFORM, Side.NETWORK}
