"""``chukan environment``: a test environment (検証環境) of 1/N of a production, with keys, lists and people of its own.

``plan`` makes one in a new folder from production's settings; ``run`` brings it up there and runs the scaled load, as
the demo does. Production's data can not be loaded into it: cells, key stores, common data, roots and exports say which
environment they belong to, and the sandbox's network takes synthetic people only.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.demo import SEED
from chukan.ops.demo.bring_up import Credentials
from chukan.ops.demo.model import derive, read_model, write_model
from chukan.ops.demo.place import Place
from chukan.ops.demo.run import Options
from chukan.ops.demo.run import run as run_demo
from chukan.ops.local.machine import state_folder
from chukan.ops.output import Json, say
from chukan.settings import load

app = App(name="environment", help="Plan and run a test environment that is 1/N of production.")

_FRACTION: Final = re.compile(r"1/([1-9][0-9]{0,6})")


@app.command
def plan(*, production: Path, fraction: str, population: int, queries: int, to: Path, as_json: Json = False) -> None:
    """Make a test environment of 1/N of a production: numbers, lists, certificates and signing keys of its own.

    Args:
        production: Settings file of any of production's exchanges; only numbers are taken from it.
        fraction: 1/N.
        population: Residents that production serves.
        queries: Queries of the time to be rehearsed, in production.
        to: Folder to make.
        as_json: Print JSON.
    """
    settings = load(production, {})
    model = derive(settings, _read_fraction(fraction), population=population, queries=queries)
    place = Place(to.absolute(), databases_of(to))
    if to.exists() and any(to.iterdir()):
        raise Problem("file_exists", expected=str(to))
    write_model(place, model, settings.data.law_directory)
    place.make()
    Credentials(place, SystemClock())
    told = f"1/{model.fraction}: {model.people:,} people, {model.queries:,} queries\nchukan environment run --at {to}"
    say(model, told, as_json=as_json)


@app.command
def run(
    *,
    at: Path,
    once: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    reset: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Bring a planned test environment up, run the scaled load, and stay up until Ctrl-C.

    Args:
        at: Folder that ``plan`` made.
        once: End after the run.
        as_json: Print the result as one JSON object, last on standard output.
        reset: Throw its data away first; numbers and lists stay.
    """
    place = Place(at.absolute(), databases_of(at))
    model = read_model(place)
    if model is None:
        raise Problem("settings_unreadable", expected=str(place.model_file))
    options = Options(once=once, as_json=as_json, reset=reset, people=model.people, queries=model.queries, seed=SEED)
    return run_demo(options, place)


def _read_fraction(text: str) -> int:
    found = _FRACTION.fullmatch(text)
    if found is None:
        raise Problem("invalid_field", pointer="/fraction", expected="1/N")
    return int(found[1])


def databases_of(folder: Path) -> Path:
    """Return where the databases of an environment lie: PostgreSQL may not be able to enter its folder."""
    return state_folder() / f"environment-{hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:12]}"
