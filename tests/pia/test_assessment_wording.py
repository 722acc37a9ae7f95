"""The wording for protection assessments: whatever it names is there, and what it rests on is shown."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops import pia, trace
from chukan.ops.pia import Measure, Sheet, Standing

KNOWN = {row.id: row.basis for row in trace.requirements()}


@pytest.fixture(scope="module")
def pages() -> Mapping[str, Sheet]:
    return pia.sheets()


@pytest.fixture
def sound(pages: Mapping[str, Sheet]) -> Measure:
    """A measure that the software carries out, and nothing is wrong with."""
    found = next(each for sheet in pages.values() for each in sheet.measures() if each.standing is Standing.DONE)
    assert list(pia.complaints(found, KNOWN)) == []
    return found


def test_everything_that_it_names_is_there_and_nothing_of_an_assessment_is_left_out(
    pages: Mapping[str, Sheet],
) -> None:
    assert pia.faults(pages) == []


def test_the_pages_are_what_the_data_says() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in pia.PAGES.glob("*.md")}
    made = pia.rendered()
    assert set(found) - set(made) == {"README.md", "README.ja.md"}
    for name, text in made.items():
        assert found[name] == text, f"{name}: run `./chukan pia write`"


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"requirements": ("SYM-01", "SYM-99")}, "no requirement SYM-99"),
        ({"requirements": ("SYM-01", "OPS-04")}, "no test of it shows OPS-04"),
        ({"where": ("tenants/nowhere.py",)}, "no tenants/nowhere.py"),
        ({"docs": ("docs/nowhere.md",)}, "no docs/nowhere.md"),
        ({"commands": ("keys rotate", "keys burn")}, "no command keys burn"),
        ({"commands": ("keyz",)}, "no command keyz"),
        ({"commands": ("keys --help",)}, "no command keys --help"),
        ({"tests": ("tests/pia/test_assessment_wording.py::test_nothing",)}, "no test "),
        ({"tests": ("tests/pia/test_nowhere.py::test_nothing",)}, "no test "),
        (
            {"tests": ("tests/pia/test_assessment_wording.py::test_the_pages_are_what_the_data_says",)},
            "cites none of its requirements",
        ),
        ({"tests": ()}, "shown by tests"),
        ({"standing": Standing.PEOPLE}, "shown by tests"),
        ({"standing": Standing.PART, "gaps": ()}, "what is missing has to be said"),
    ],
)
def test_what_is_not_so_is_told(sound: Measure, wrong: Mapping[str, object], complaint: str) -> None:
    told = list(pia.complaints(msgspec.structs.replace(sound, **wrong), KNOWN))
    assert [text for text in told if complaint in text]


def test_an_item_of_the_assessment_that_is_missing_or_stands_twice_is_told(pages: Mapping[str, Sheet]) -> None:
    name = "network.ja.md"
    without = {page: sheet for page, sheet in pages.items() if page != name}
    assert "no measure speaks of PRV-08" in pia.faults(without)
    assert "NW-01 stands twice" in pia.faults({**pages, "again.ja.md": pages[name]})


def test_a_test_is_known_by_its_file_its_class_and_its_markers(tmp_path) -> None:
    (tmp_path / "test_some.py").write_text(
        "pytestmark = pytest.mark.requirement('AAA-01')\n"
        "def test_one(): ...\n"
        "def helper(): ...\n"
        "@pytest.mark.requirement('AAA-02', 'AAA-03')\n"
        "class TestMany:\n"
        "    @pytest.mark.requirement('AAA-04')\n"
        "    async def test_two(self): ...\n",
        encoding="utf-8",
    )
    assert pia.cited_in("test_some.py", tmp_path) == {
        "test_some.py::test_one": {"AAA-01"},
        "test_some.py::TestMany::test_two": {"AAA-01", "AAA-02", "AAA-03", "AAA-04"},
    }


def test_data_of_another_form_is_refused(tmp_path) -> None:
    (tmp_path / "odd.toml").write_text('title = "odd"\nintro = ""\nsections = []\n', encoding="utf-8")
    with pytest.raises(Problem) as refused:
        pia.sheets(tmp_path)
    assert refused.value.code == "setting_invalid"
