"""Each drill has its section in both languages, with the bounds of its scenario; what is not in service says so."""

import re
from pathlib import Path

import pytest

from chukan.ops.drills.bringing_up import NEEDS
from chukan.ops.drills.scenario import Scenario, read_all

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "operators"
PAGES = {
    "ja": (
        FOLDER / "drills.ja.md", "## まだ使えない訓練",
        "本拠が東の機関 {east:g} 秒、西の機関 {west:g} 秒以内", "最長 {whole:g} 秒",
    ),
    "en": (
        FOLDER / "drills.md", "## Not yet in service",
        "outage of home east at most {east:g} s, of home west {west:g} s", "at most {whole:g} s",
    ),
}  # fmt: skip


def told(scenario: Scenario, *forms: str) -> list[str]:
    """Return what a section must say of a scenario's bounds."""
    within = scenario.within
    return [
        form.format(east=within.outage_home_east_s, west=within.outage_home_west_s, whole=within.drill_s)
        for form in forms
    ]


@pytest.mark.requirement("PLT-04")
@pytest.mark.parametrize("language", PAGES)
def test_each_drill_has_its_section_with_its_bounds(language: str) -> None:
    path, later, *forms = PAGES[language]
    serving, _, planned = path.read_text("utf-8").partition(later)
    parts = re.split(r"^## ", serving, flags=re.MULTILINE)[1:]
    sections = {part.split()[0].rstrip(":"): " ".join(part.split()) for part in parts}
    scenarios = read_all()
    ready = {name for name, scenario in scenarios.items() if set(scenario.needs) <= set(NEEDS)}
    assert set(sections) == ready
    untold = {name: [text for text in told(scenarios[name], *forms) if text not in sections[name]] for name in ready}
    assert {name: texts for name, texts in untold.items() if texts} == {}
    assert set(re.findall(r"^### ([a-z-]+)", planned, re.MULTILINE)) == set(scenarios) - ready
