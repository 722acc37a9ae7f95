"""What the processes of a town wrote while they were killed: complaints, and whether anybody is named.

A process that is killed may leave a last line that is cut off; every other line is one JSON object.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from chukan.ops.demo import cast
from chukan.ops.sandbox.people import addressee_number
from chukan.tests.crash.town import Town

_DIGITS: Final = re.compile(r"\d{11,}")
_GRAVE: Final = {"error", "critical"}


def _texts(town: Town) -> Iterator[tuple[Path, str]]:
    """Yield every log of the town, those of the databases too."""
    for path in (*town.place.log.glob("*.log"), *town.place.databases.glob("*.log")):
        yield path, path.read_text(encoding="utf-8", errors="replace")


def complaints(town: Town) -> list[Any]:
    """Return every line that says error or critical: a crash of somebody else is no error of one's own."""
    found = []
    for path in town.place.log.glob("*.log"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("{") and line.endswith("}"):
                entry = json.loads(line)
                if entry.get("level") in _GRAVE:
                    found.append(entry)
            elif "Traceback" in line:
                found.append(line)
    return found


def named(town: Town) -> list[str]:
    """Return the logs in which a number or a name of any resident stands."""
    people = [person for resident in town.population.residents for person in (resident.now, resident.before) if person]
    numbers = {number for person in people for number in (person.resident_code, person.individual_number)}
    for agency in cast.agencies():
        numbers |= {addressee_number(person, agency.code) for _, person in town.population.roll(agency.code)}
    names = {name for person in people for name in (person.name, person.name_kana, person.address)}
    return [
        path.name
        for path, text in _texts(town)
        if numbers & set(_DIGITS.findall(text)) or any(name in text for name in names)
    ]
