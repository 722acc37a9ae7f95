"""Writes all the time: workers of several agencies, through both exchanges, each with a journal of its own on disk.

Nothing is ever sent a second time while something is broken: what became of a request without an answer is asked by its
own key when it is over.
"""

import http.client
import json
import os
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from independent_evidence import FAILURES, Place

AGENCIES_A_HOME = 3
CASES_EACH = 6
EVERY_S = 0.6
LOOK_EACH = 4
"""Of so many calls of a worker one looks back at what was acknowledged."""
AFFAIRS_AVOIDED = {"JTX0000000000099"}
"""Household copies may be held for an officer (自動応答不可), and nobody here is one."""


class Case:
    """One question: who asks whom about whom."""

    def __init__(self, number: int, affair: dict[str, Any], addressee: str) -> None:
        self.number, self.agency, self.provider, self.kind = (
            number,
            affair["inquirer"],
            affair["provider"],
            affair["kind"],
        )
        names = ("kind", "provider", "affair", "procedure")
        self.line = {**{name: affair[name] for name in names}, "addressee": addressee, "department": "独立検証"}


class Journal:
    """One worker's journal: what is about to be sent is on disk before, what came back before it counts."""

    def __init__(self, path: Path, **worker: str) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._worker = worker
        self.entries: list[dict[str, Any]] = []

    def write(self, e: str, **fields: Any) -> None:
        """Keep one entry."""
        entry = {"t": time.monotonic(), "e": e, **self._worker, **fields}
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.entries.append(entry)


class Worker(threading.Thread):
    """Asks for one agency through one exchange, and through the other one while that does not answer."""

    def __init__(
        self,
        place: Place,
        name: str,
        cases: Sequence[Case],
        exchange: str,
        folder: Path,
        stop: threading.Event,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.agency, self._cases, self._stop_asked = cases[0].agency, cases, stop
        home = place.agencies[self.agency]["cell"]
        self.journal = Journal(
            folder / f"{name}.jsonl", worker=name, home=home, agency=self.agency, group=f"{home} by {exchange}"
        )
        exchanges = [exchange, *(each for each in place.urls if each != exchange)]
        self._callers = {each: place.caller(self.agency, each) for each in exchanges}
        self._n = 0
        self._batches: list[tuple[str, list[str]]] = []
        self.failure: BaseException | None = None
        """What ended this worker before it was told to end: then its journal is no evidence."""

    def run(self) -> None:
        """Work until told to end."""
        try:
            self._work()
        except BaseException as error:
            self.failure = error
            raise

    def _work(self) -> None:
        while not self._stop_asked.wait(EVERY_S):
            self._n += 1
            if self._n % LOOK_EACH == 0 and self._batches:
                self._look()
            else:
                self._ask(self._cases[self._n % len(self._cases)])

    def _ask(self, case: Case) -> None:
        key, exchange = str(uuid.uuid4()), next(iter(self._callers))
        told = {"n": self._n, "key": key, "case": case.number, "exchange": exchange}
        self.journal.write("sent", **told)
        try:
            reply = self._callers[exchange].call("POST", "/queries", {"lines": [case.line]}, key)
        except FAILURES as error:
            self.journal.write("doubt", **told, why=type(error).__name__)
            self._turn(exchange)
            return
        if reply.status in {200, 202}:
            batch = _batch(reply.body)
            self.journal.write("told", **told, **batch, status=reply.status, **_header(reply.durability))
            self._batches.append((batch["batch"], [line for line, _, _ in batch["lines"]]))
        else:
            code = (reply.body or {}).get("code", "")
            self.journal.write("refused" if reply.status < 500 else "doubt", **told, status=reply.status, why=code)

    def _look(self) -> None:
        """Look back at one of the newest batches, through the exchange at which it was not asked where that answers."""
        batch, lines = self._batches[-1 - self._n // LOOK_EACH % min(len(self._batches), 20)]
        exchange = list(self._callers)[-1]
        try:
            reply = self._callers[exchange].call("GET", f"/queries/{batch}")
        except FAILURES:
            return
        if reply.status == http.client.NOT_FOUND:
            self.journal.write("missing", about=lines[0], exchange=exchange)
        elif reply.status == http.client.OK:
            self.journal.write("looked", **_batch(reply.body), exchange=exchange)

    def _turn(self, failed: str) -> None:
        """Prefer the other exchange from now on, as an agency whose route is gone."""
        self._callers = {
            **{name: caller for name, caller in self._callers.items() if name != failed},
            failed: self._callers[failed],
        }

    def repeat(self, place: Place, cases: dict[int, Case]) -> None:
        """When it is over: send every request again under its own key, and keep what it comes to."""
        refused = {entry["key"] for entry in self.journal.entries if entry["e"] == "refused"}
        for entry in [entry for entry in self.journal.entries if entry["e"] == "sent" and entry["key"] not in refused]:
            told = {"n": entry["n"], "key": entry["key"], "case": entry["case"]}
            body = {"lines": [cases[entry["case"]].line]}
            reply = place.patient(self.agency, "POST", "/queries", body, entry["key"])
            if reply.status in {200, 202}:
                self.journal.write("again", **told, **_batch(reply.body))
            else:
                self.journal.write("again_refused" if reply.status else "again_unanswered", **told, status=reply.status)


def _batch(body: Any) -> dict[str, Any]:
    lines = [[one["id"], one["state"], one.get("outcome")] for one in body["lines"] if "id" in one]
    return {"batch": body["batch"], "lines": lines}


def _header(text: str) -> dict[str, Any]:
    """Read ``two-centres; leader=e1; timeline=3``."""
    words = dict(part.strip().split("=", 1) for part in text.split(";")[1:] if "=" in part)
    return {
        "durability": text.partition(";")[0],
        "leader": words.get("leader", ""),
        "timeline": int(words.get("timeline", 0)),
    }


def choose(place: Place) -> dict[int, Case]:
    """Return the questions: of some agencies of each home, of as many providers as there are."""
    on = place.agencies
    by_agency: dict[str, list[dict[str, Any]]] = {}
    for affair in place.affairs:
        ends = {affair["inquirer"], affair["provider"]}
        if ends <= set(on) and affair["examples"] and affair["procedure"] not in AFFAIRS_AVOIDED:
            by_agency.setdefault(affair["inquirer"], []).append(affair)
    found: dict[int, Case] = {}
    for home in sorted({row["cell"] for row in on.values()}):
        at_home = sorted(
            (code for code in by_agency if on[code]["cell"] == home), key=lambda code: -len(by_agency[code])
        )
        for code in at_home[:AGENCIES_A_HOME]:
            affairs = sorted(by_agency[code], key=lambda affair: (affair["provider"][::-1], affair["procedure"]))
            for affair in affairs[:: max(1, len(affairs) // CASES_EACH)][:CASES_EACH]:
                found[len(found)] = Case(len(found), affair, affair["examples"][0])
    return found
