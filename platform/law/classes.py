"""Resolves the words of the law (市町村長, 都道府県知事等 …) to agencies, in three values.

The words and the classes they name are data (``class_texts.csv``, ``classes.csv``). Words that are not in the data
answer unknown; so does a member that the data marks unknown, such as a town under 都道府県知事等, which belongs to the
class if it runs a welfare office. A class that is in the data holds its named members and nobody else.

Agencies that all classes treat alike share one *standing* (``head:city``, or the agency's own code where a class names
it), so that judgements can be kept per standing and not per agency.
"""

from dataclasses import dataclass

from chukan.platform.law.decision import Verdict, any_of
from chukan.platform.law.tables import Source
from chukan.tenants.bodies import AgencyEntry

_ANYONE = "*"
_AGENCY = "agency:"


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of the law: ``members[class][member]`` and the classes that each wording names."""

    members: dict[str, dict[str, Verdict]]
    texts: dict[str, tuple[str, ...]]
    named: frozenset[str]
    """Codes of agencies that some class names singly."""
    categories: dict[str, str]
    """Category of each agency that is named singly."""

    def standing(self, agency: AgencyEntry) -> str:
        """Return what the classes see of an agency."""
        return agency.code if agency.code in self.named else agency.category

    def holds(self, text: str, standing: str) -> Verdict:
        """Tell whether the wording ``text`` means agencies of a standing."""
        classes = self.texts.get(text)
        if classes is None:
            return Verdict.UNKNOWN
        return any_of(self._is_member(name, standing) for name in classes)

    def _is_member(self, name: str, standing: str) -> Verdict:
        members = self.members[name]
        for key in (_AGENCY + standing, self.categories.get(standing, standing), _ANYONE):
            found = members.get(key)
            if found is not None:
                return found
        return Verdict.NO


def read_classes(source: Source, agencies: dict[str, AgencyEntry]) -> Classes:
    """Return the classes.

    Raises:
        ValueError: a wording names a class that does not exist, or a class an agency that does not exist.
    """
    members: dict[str, dict[str, Verdict]] = {}
    for row in source.rows("classes.csv"):
        members.setdefault(row["class"], {})[row["member"]] = Verdict(row["verdict"])
    texts = {row["text"]: tuple(row["classes"].split("|")) for row in source.rows("class_texts.csv")}
    lost = {name for names in texts.values() for name in names} - members.keys()
    if lost:
        raise ValueError(f"wordings name classes that do not exist: {sorted(lost)}")
    named = {key.removeprefix(_AGENCY) for held in members.values() for key in held if key.startswith(_AGENCY)}
    if named - agencies.keys():
        raise ValueError(f"classes name agencies that do not exist: {sorted(named - agencies.keys())}")
    categories = {code: agencies[code].category for code in named}
    return Classes(members, texts, frozenset(named), categories)
