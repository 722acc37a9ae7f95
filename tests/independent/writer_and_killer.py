"""An independent writer and killer: ``python3 -ES tests/independent/writer_and_killer.py --lab FOLDER``.

It asks for several agencies of both homes through both exchanges, all the time and never a second time; kills and
freezes processes of a lab by pid meanwhile; and judges from its own journals alone whether anything acknowledged was
lost or done twice. It needs the standard library of Python 3.11, psql, and a lab of the same user that nobody else uses
(``./chukan demo --centres``). Nothing of the platform is imported, nor is its drills' code: ``-S`` leaves no library.

The folder is the lab's, with ``site.toml`` and ``outside/connection.json``. The last line is one JSON object; the exit
status is 0 when everything held, 1 when not.
"""

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import independent_evidence as evidence
from independent_judge import Finding, judge, outages
from independent_lab import Lab, Node, family, wait
from independent_writer import EVERY_S, Worker, choose

WORKERS_A_GROUP = 3
WARM_S = 8.0
AFTER_S = 12.0
LEADER_S = 90.0
SETTLE_S = 180.0
STILL_S = 240.0
FROZEN_PATRONI_S = 60.0
FROZEN_POSTGRES_S = 40.0
AWAY_S = 45.0


class Run:
    """One thing broken while the writers write."""

    def __init__(self, lab: Lab, place: evidence.Place, folder: Path, say: Callable[[str], None]) -> None:
        self.lab, self._place, self._folder, self._say = lab, place, folder, say
        self._cases = choose(place)

    @contextmanager
    def _writing(self, folder: Path) -> Iterator[list[Worker]]:
        stop = threading.Event()
        agencies = sorted({case.agency for case in self._cases.values()})
        groups: dict[tuple[str, str], list[str]] = {}
        for agency in agencies:
            for exchange in self._place.urls:
                groups.setdefault((self._place.agencies[agency]["cell"], exchange), []).append(agency)
        workers = []
        for (home, exchange), of in sorted(groups.items()):
            for number in range(WORKERS_A_GROUP):
                cases = [case for case in self._cases.values() if case.agency == of[number % len(of)]]
                workers.append(Worker(self._place, f"{home}-{exchange}-{number}", cases, exchange, folder, stop))
        for worker in workers:
            worker.start()
            wait(EVERY_S / len(workers))
        try:
            yield workers
        finally:
            stop.set()
            for worker in workers:
                worker.join(evidence.CALL_S * 3)
        broken = [worker.name for worker in workers if worker.failure or worker.is_alive()]
        if broken:
            raise RuntimeError(f"writers that did not write to the end: {broken}")

    def judge(self, scenario: str) -> dict[str, Any]:
        """Break, wait until all is well again, and judge."""
        folder = self._folder / scenario
        folder.mkdir(parents=True)
        complaints = self.lab.settle(SETTLE_S)
        if complaints:
            raise RuntimeError(f"the lab is not well before: {complaints}")
        before = evidence.look_before(self._place)
        with self._writing(folder) as workers:
            begun = time.monotonic()
            wait(WARM_S)
            course = SCENARIOS[scenario](self.lab, self._say)
            unsettled = self.lab.settle(SETTLE_S)
            wait(AFTER_S)
            ended = time.monotonic()
        self._say(f"{scenario}: asking everything again")
        repeats = [threading.Thread(target=worker.repeat, args=(self._place, self._cases)) for worker in workers]
        for repeat in repeats:
            repeat.start()
        for repeat in repeats:
            repeat.join()
        entries = sorted(
            (entry for worker in workers for entry in worker.journal.entries), key=lambda entry: entry["t"]
        )
        seen = evidence.read_until_still(self._place, before, STILL_S)
        seen["answers"] = evidence.answers(self._place, seen["lines"], self._kinds(entries))
        seen["nodes"] = evidence.read_nodes(self.lab)
        (folder / "evidence.json").write_text(json.dumps(seen), encoding="utf-8")
        told = _told(scenario, course, entries, judge(entries, seen), (begun, ended))
        passed = told["passed"] and not unsettled
        return {**told, "provided": len(seen["answers"]), "unsettled": unsettled, "passed": passed}

    def _kinds(self, entries: Sequence[dict[str, Any]]) -> dict[str, tuple[str, str]]:
        cases = self._cases
        return {
            line: (cases[entry["case"]].kind, cases[entry["case"]].provider)
            for entry in entries
            if entry["e"] in {"told", "again"}
            for line, _, _ in entry["lines"]
        }


def _told(
    scenario: str,
    course: dict[str, Any],
    entries: list[dict[str, Any]],
    findings: list[Finding],
    window: tuple[float, float],
) -> dict[str, Any]:
    counts = {
        kind: sum(finding.kind == kind for finding in findings) for kind in ("lost", "doubled", "two_writers", "wrong")
    }
    kinds = ("sent", "told", "refused", "doubt", "looked", "again")
    number = {kind: sum(entry["e"] == kind for entry in entries) for kind in kinds}
    broken = window[0] + WARM_S
    after = {
        home: sum(e["e"] == "told" and e["home"] == home and e["t"] > broken for e in entries)
        for home in {e["home"] for e in entries}
    }
    return {
        "scenario": scenario,
        "course": course,
        "acknowledged": number["told"],
        "entries": number,
        "acknowledged_after": after,
        **counts,
        "outage_s": outages(entries, "home", *window),
        "outage_s_by_group": outages(entries, "group", *window),
        "durability": _tally(entry["durability"] for entry in entries if entry["e"] == "told"),
        "why_not": _tally(str(entry["why"]) for entry in entries if entry["e"] in {"doubt", "refused"}),
        "findings": [finding._asdict() for finding in findings[:50]],
        "passed": not findings and all(after.values()),
    }


def _tally(words: Iterator[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return found


# ---------------------------------------------------------------- what is broken

Say = Callable[[str], None]


def _broken(
    lab: Lab, say: Say, what: str, breaking: Callable[[Node], AbstractContextManager[Any]], away_s: float
) -> dict[str, Any]:
    """Break something about the leader of the east for a time; return who led before, meanwhile and afterwards."""
    old = lab.leader("east", LEADER_S)
    say(f"{what}: {old.name} in the {old.centre}")
    begun = time.monotonic()
    with breaking(old) as killed:
        new = lab.leader("east", LEADER_S, but=old.name)
        took_s = time.monotonic() - begun
        say(f"{what}: {new.name} leads after {took_s:.1f} s")
        wait(max(0.0, away_s - took_s))
        both = {cell: lab.claims(cell) for cell in lab.database}
    return {
        "before": old.name,
        "after": new.name,
        "seen_after_s": round(took_s, 1),
        "killed": killed,
        "claims_meanwhile": both,
    }


@contextmanager
def _crash(lab: Lab, node: Node, *, whole: bool) -> Iterator[None]:
    lab.crash(node, whole=whole)
    yield


def postgres_crash(lab: Lab, say: Say) -> dict[str, Any]:
    """Kill the leading postgres and all its children in one moment."""
    return _broken(lab, say, "postgres-crash", lambda node: _crash(lab, node, whole=True), 0.0)


def postmaster_crash(lab: Lab, say: Say) -> dict[str, Any]:
    """Kill the postmaster alone: its children, senders of the log among them, live on until they notice."""
    return _broken(lab, say, "postmaster-crash", lambda node: _crash(lab, node, whole=False), 0.0)


def centre_loss(lab: Lab, say: Say) -> dict[str, Any]:
    """Kill everything in the centre from which the east is led, take its files away, and give it back later."""
    return _broken(lab, say, "centre-loss", lambda node: lab.lost(node.centre), AWAY_S)


def frozen_patroni(lab: Lab, say: Say) -> dict[str, Any]:
    """Stop Patroni alone on the leader; its postgres goes on and takes itself for the primary."""
    return _broken(lab, say, "frozen-patroni", lambda node: lab.frozen({lab.patroni(node)}), FROZEN_PATRONI_S)


def frozen_postgres(lab: Lab, say: Say) -> dict[str, Any]:
    """Stop the leading postgres with all its children; its Patroni goes on. Then it wakes."""
    return _broken(lab, say, "frozen-postgres", lambda node: lab.frozen(_postgres(lab, node)), FROZEN_POSTGRES_S)


def _postgres(lab: Lab, node: Node) -> set[int]:
    return family(lab.postmaster(node))


SCENARIOS: dict[str, Callable[[Lab, Say], dict[str, Any]]] = {
    "postgres-crash": postgres_crash,
    "postmaster-crash": postmaster_crash,
    "centre-loss": centre_loss,
    "frozen-patroni": frozen_patroni,
    "frozen-postgres": frozen_postgres,
}


def main(arguments: Sequence[str]) -> int:
    """Do it."""
    parser = argparse.ArgumentParser(description="Kill a lab's processes while asking, and judge what came of it.")
    parser.add_argument("--lab", type=Path, required=True, help="the lab's folder, with site.toml in it")
    parser.add_argument("--journals", type=Path, required=True, help="where journals and evidence are kept")
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(SCENARIOS)}; all by default")
    given = parser.parse_args(arguments)
    unknown = set(given.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"no scenario: {', '.join(sorted(unknown))}")
    # What is stopped or taken away is given back by the blocks that did it, also when the program is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def say(text: str) -> None:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        sys.stderr.flush()

    lab = Lab(given.lab)
    lab.enter()
    run = Run(lab, evidence.Place(given.lab / "outside" / "connection.json"), given.journals, say)
    found = []
    for scenario in given.scenarios or SCENARIOS:
        found.append(run.judge(scenario))
        say(json.dumps(found[-1], ensure_ascii=False))
    passed = all(each["passed"] for each in found)
    sys.stdout.write(
        json.dumps({"topology": lab.topology, "passed": passed, "scenarios": found}, ensure_ascii=False) + "\n"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
