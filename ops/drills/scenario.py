"""A drill as data: one TOML file with given, when, then, within, and titles in Japanese and English.

The files are checked when they are read: every sentence is one of the vocabulary, every bound has its unit, and what a
drill breaks it also brings back. A wrong file is refused with a pointer to what is wrong.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from chukan.errors import Problem
from chukan.ops.drills.vocabulary import GIVEN, THEN, WHEN, Step, understand

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
_BRINGS_BACK: Final = {
    "kill_postgres": "start_all",
    "kill_node": "start_all",
    "kill": "start_all",
    "drain": "start_all",
    "freeze": "thaw_all",
    "freeze_node": "thaw_all",
    "freeze_patroni": "thaw_all",
    "lose_centre": "return_centre",
    "cut": "mend",
    "isolate": "rejoin",
    "fill_disk": "free_disk",
    "lose_gateway": "return_gateway",
    "move_away": "move_home",
    "restore": "reopen",
}
"""What a step breaks must be undone by a later one: a drill leaves the site as it found it."""


class Within(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds. ``drill_s`` is the time box of the whole; the others judge what clients saw."""

    drill_s: Seconds
    outage_home_east_s: Seconds | None = None
    """Longest time without an acknowledged request, for agencies whose home is the east."""
    outage_home_west_s: Seconds | None = None
    after_word_s: Seconds | None = None
    """The same, counted from the operator's word (``say that the primary … is dead``)."""
    moving_s: Seconds | None = None
    """Longest time for which an agency that moves is not served."""

    def outage_s(self, group: str) -> float | None:
        """Return the bound of a group of agencies, e.g. ``home-east-near``."""
        return self.outage_home_east_s if group.startswith("home-east") else self.outage_home_west_s


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file as it is written."""

    title_ja: str
    title_en: str
    breaks_ja: str
    breaks_en: str
    given: list[str]
    when: list[str]
    within: Within
    then: list[str] = []


class Scenario(msgspec.Struct, frozen=True):
    """One drill, understood."""

    name: str
    title_ja: str
    title_en: str
    breaks_ja: str
    breaks_en: str
    given: tuple[Step, ...]
    when: tuple[Step, ...]
    then: tuple[Step, ...]
    within: Within

    @property
    def needs(self) -> tuple[str, ...]:
        """What not every installation offers, and this drill cannot do without."""
        steps = (*self.given, *self.when, *self.then)
        return tuple(dict.fromkeys(step.needs for step in steps if step.needs))

    def claims(self, verb: str) -> bool:
        """Tell whether the file demands something beyond what always holds."""
        return any(step.verb == verb for step in self.then)


def parse(name: str, text: str) -> Scenario:
    """Return the scenario of a file's text.

    Raises ``Problem``: settings_unreadable, setting_invalid, setting_missing, setting_unknown; with a pointer.
    """
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except tomllib.TOMLDecodeError:
        raise Problem("settings_unreadable", pointer=f"/{name}", expected="TOML") from None
    except msgspec.ValidationError as error:
        raise Problem("setting_invalid", pointer=f"/{name}", expected=str(error)) from None
    scenario = Scenario(
        name=name,
        title_ja=file.title_ja,
        title_en=file.title_en,
        breaks_ja=file.breaks_ja,
        breaks_en=file.breaks_en,
        given=tuple(_steps(file.given, GIVEN, f"/{name}/given")),
        when=tuple(_steps(file.when, WHEN, f"/{name}/when")),
        then=tuple(_steps(file.then, THEN, f"/{name}/then")),
        within=file.within,
    )
    _check(scenario)
    return scenario


def _steps(texts: list[str], sentences: Any, pointer: str) -> Iterator[Step]:  # noqa: ANN401 - a table of Sentence
    for place, text in enumerate(texts):
        yield understand(text, sentences, f"{pointer}/{place}")


def _check(scenario: Scenario) -> None:
    pointer = f"/{scenario.name}/when"
    if not scenario.when:
        raise Problem("setting_missing", pointer=pointer, expected="at least one sentence")
    verbs = [step.verb for step in scenario.when]
    for place, step in enumerate(scenario.when):
        undone_by = _BRINGS_BACK.get(step.verb)
        if undone_by is not None and undone_by not in verbs[place:]:
            back = next(sentence.en for sentence in WHEN if sentence.verb == undone_by)
            raise Problem("setting_missing", pointer=f"{pointer}/{place}", expected=back)
        if step.verb in {"cut", "mend"} and step.words["centre"] == step.words["other"]:
            raise Problem("setting_invalid", pointer=f"{pointer}/{place}", expected="two different centres")
    if scenario.within.after_word_s is not None and "fence" not in verbs:
        raise Problem("setting_invalid", pointer=f"/{scenario.name}/within/after_word_s", expected="an operator's word")
    longest = sum(step.limit_s for step in (*scenario.given, *scenario.when))
    if longest > scenario.within.drill_s:
        raise Problem(
            "setting_invalid", pointer=f"/{scenario.name}/within/drill_s", expected=f"at least {longest:.0f} s"
        )


def read_all(folder: Path | None = None) -> Mapping[str, Scenario]:
    """Return the shipped scenarios (or those of a folder) by name, in the order of their names.

    Raises ``Problem`` as ``parse`` does; settings_unreadable for a folder that cannot be read.
    """
    home = resources.files("chukan.ops.drills.scenarios") if folder is None else folder
    try:
        texts = {
            entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
            for entry in home.iterdir()
            if entry.name.endswith(".toml")
        }
    except (OSError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected="a folder of scenario files in UTF-8") from None
    return {name: parse(name, texts[name]) for name in sorted(texts)}


def find(name: str, folder: Path | None = None) -> Scenario:
    """Return one scenario. Raises ``Problem`` drill_unknown with the nearest name."""
    known = read_all(folder)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
        raise Problem("drill_unknown", expected=nearest[0] if nearest else "chukan drill list")
    return known[name]
