"""Judges what the independent writer saw: its own journals against what everybody shows when it is over.

Pure, and of nobody's making but its own: no line of the platform or of its drills is used here. The rules are those of
the public papers (docs/specs): what was acknowledged is there and has ended in one way, one key has one effect, each
side and the network have one record of it, every node of a cell holds the same rows.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

OPEN = {"accepted", "permit_requested", "permitted", "held"}
"""States of docs/specs/transitions.md from which an inquirer's line still goes on."""
CALLED = {"failed": "bad_request", "cancelled": "expired"}
"""What an agency calls otherwise than the network, which knows neither word."""

Entry = Mapping[str, Any]


class Finding(NamedTuple):
    """Something that must not be: of which kind, what it is, and the id that it is about."""

    kind: str
    what: str
    about: str


def judge(entries: Sequence[Entry], seen: Mapping[str, Any]) -> list[Finding]:
    """Return everything that is wrong. ``entries`` are the journals' in order of time, ``seen`` is the evidence."""
    return [
        *_effects(entries),
        *_found(entries, seen["lines"]),
        *_ends(entries, seen["lines"]),
        *_records(entries, seen),
        *_writers(entries, seen["records"]),
        *_nodes(entries, seen),
        *_answers(entries, seen["answers"]),
    ]


def _told(entries: Iterable[Entry]) -> Iterator[tuple[Entry, str, str, str | None]]:
    """Yield every line that the platform acknowledged, at the first sending or at a repeated one."""
    for entry in entries:
        if entry["e"] in {"told", "again"}:
            for line, state, outcome in entry["lines"]:
                yield entry, line, state, outcome


def _effects(entries: Sequence[Entry]) -> Iterator[Finding]:
    """One key has one effect, and it is never forgotten; each was asked for again, or nothing is known of it."""
    sent = {entry["key"]: entry["e"] for entry in entries if entry["e"] in {"sent", "refused"}}
    repeated = {entry["key"] for entry in entries if entry["e"].startswith("again")}
    for key in (key for key, last in sent.items() if last == "sent" and key not in repeated):
        yield Finding("lost", "never_asked_again", key)
    effects: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    acknowledged: set[str] = set()
    for entry in entries:
        if entry["e"] in {"told", "again"}:
            effects[entry["key"]].add((entry["batch"], *(line for line, _, _ in entry["lines"])))
            acknowledged.add(entry["key"])
        elif entry["e"] == "again_refused" and entry["key"] in acknowledged:
            yield Finding("lost", "acknowledged_key_is_refused", entry["key"])
        elif entry["e"] == "again_unanswered":
            yield Finding("lost", "repeat_never_answered", entry["key"])
    for key, found in effects.items():
        if len(found) > 1:
            yield Finding("doubled", "one_key_two_effects", key)


def _found(entries: Sequence[Entry], lines: Mapping[str, Sequence[Sequence[Any]]]) -> Iterator[Finding]:
    """What was acknowledged is shown, once; what is shown was asked for."""
    shown = {agency: Counter(line for line, _, _ in of) for agency, of in lines.items()}
    asked: dict[str, set[str]] = defaultdict(set)
    for entry, line, _, _ in _told(entries):
        asked[entry["agency"]].add(line)
    for agency, of in asked.items():
        for line in sorted(of):
            times = shown.get(agency, Counter())[line]
            if times != 1:
                yield Finding("doubled" if times else "lost", f"acknowledged_query_shown_{times}_times", line)
    for agency, counts in shown.items():
        for line in sorted(counts.keys() - asked[agency]):
            yield Finding("doubled", "query_that_nobody_asked", line)


def _ends(entries: Sequence[Entry], lines: Mapping[str, Sequence[Sequence[Any]]]) -> Iterator[Finding]:
    """Every line ends, and whoever looked at whatever time was told the same end."""
    ends: dict[str, set[str]] = defaultdict(set)
    looked = [
        (line, state, outcome) for entry in entries if entry["e"] == "looked" for line, state, outcome in entry["lines"]
    ]
    told = [(line, state, outcome) for _, line, state, outcome in _told(entries)]
    last = [(line, state, outcome) for of in lines.values() for line, state, outcome in of]
    for line, state, outcome in (*told, *looked, *last):
        if state not in OPEN and outcome is not None:
            ends[line].add(outcome)
    for line, state, outcome in last:
        if state in OPEN or outcome is None:
            yield Finding("lost", "query_without_outcome", line)
    for line, found in ends.items():
        if len(found) > 1:
            yield Finding("doubled", f"two_outcomes ({', '.join(sorted(found))})", line)


def _records(entries: Sequence[Entry], seen: Mapping[str, Any]) -> Iterator[Finding]:
    """One record at the inquirer, one at the provider, one at the network, and they tell the same end."""
    own: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    given: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    first_of = {record["id"]: record for of in seen["records"].values() for record in of if not record["amends"]}
    for agency, of in seen["records"].items():
        for record in of:
            base = first_of.get(record["amends"], record)
            if record["side"] == "inquirer":
                own[base["id"]].append(record)
            else:
                given[agency, base["reference"]].append(record)
    network: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in seen["network"]:
        network[row["request"]].append(row)
    outcomes = {line: outcome for of in seen["lines"].values() for line, _, outcome in of}
    for line in dict.fromkeys(line for _, line, _, _ in _told(entries)):
        there = network[line]
        yield from _one("inquirer", line, own[line], outcomes.get(line))
        local = not there and own[line] and not any(record["reference"] for record in own[line])
        if not local:
            yield from _counted("network", line, len(there))
        if there:
            yield from _agreed(line, own[line], there[0]["outcome"])
        if there and there[0]["provider"] in seen["records"]:
            yield from _provider(line, there[0], given[there[0]["provider"], there[0]["reference"]])


def _provider(line: str, there: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    if records or there["notified"] or there["provided"]:
        yield from _one("provider", line, records, None)
        yield from _agreed(line, records, there["outcome"])


def _one(side: str, line: str, records: Sequence[Mapping[str, Any]], outcome: str | None) -> Iterator[Finding]:
    yield from _counted(side, line, sum(not record["amends"] for record in records))
    if outcome is not None and records and outcome not in {record["outcome"] for record in records}:
        yield Finding("doubled", f"record_at_{side}_tells_another_outcome", line)


def _counted(side: str, line: str, count: int) -> Iterator[Finding]:
    if count != 1:
        yield Finding("doubled" if count else "lost", f"{count}_records_at_{side}", line)


def _agreed(line: str, records: Sequence[Mapping[str, Any]], network: str | None) -> Iterator[Finding]:
    said = {record["outcome"] for record in records}
    if records and network not in said | {CALLED.get(word) for word in said}:
        yield Finding("doubled", f"network_tells_another_outcome ({network})", line)


def _writers(entries: Sequence[Entry], records: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Finding]:
    """No acknowledgement under a timeline that was replaced before it was asked for; nothing vanishes meanwhile."""
    sent = {(entry["worker"], entry["n"]): entry["t"] for entry in entries if entry["e"] == "sent"}
    newest: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for entry in entries:
        if entry["e"] == "told" and entry.get("timeline"):
            newest[entry["home"]].append((entry["t"], entry["timeline"]))
    for entry in entries:
        if entry["e"] == "told" and entry.get("timeline"):
            asked_at = sent[entry["worker"], entry["n"]]
            before = max((timeline for t, timeline in newest[entry["home"]] if t < asked_at), default=0)
            if entry["timeline"] < before:
                yield Finding("two_writers", f"timeline_{entry['timeline']}_after_{before}", entry["key"])
        elif entry["e"] == "missing":
            yield Finding("two_writers", "acknowledged_query_was_not_there", entry["about"])
    for agency, of in records.items():
        places = Counter(record["position"] for record in of if record["position"] is not None)
        for place, times in places.items():
            if times > 1:
                yield Finding("two_writers", "one_place_in_the_log_given_twice", f"{agency} {place}")


def _nodes(entries: Sequence[Entry], seen: Mapping[str, Any]) -> Iterator[Finding]:
    """Every node of a cell, asked by SQL, holds every acknowledged line once and each record of the API once."""
    lines: dict[str, set[str]] = defaultdict(set)
    for entry, line, _, _ in _told(entries):
        lines[entry["home"]].add(line)
    shown: dict[str, set[str]] = defaultdict(set)
    for agency, of in seen["records"].items():
        shown[seen["cells"][agency]].update(record["id"] for record in of)
    for node, rows in seen["nodes"].items():
        cell = rows["cell"]
        for what, wanted in (("queries", lines[cell]), ("records", lines[cell] | shown[cell])):
            counts = Counter(rows[what])
            for one in sorted(one for one in wanted if counts[one] != 1):
                yield Finding("doubled" if counts[one] else "lost", f"{counts[one]}_rows_of_{what}_on_{node}", one)
    yield from _equal_tables(seen["nodes"])


def _equal_tables(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Leader and standbys of a cell hold the same rows of every table."""
    digests: dict[tuple[str, str], set[str]] = defaultdict(set)
    for rows in nodes.values():
        for table, digest in rows["tables"].items():
            digests[rows["cell"], table].add(digest)
    for (cell, table), found in digests.items():
        if len(found) > 1:
            yield Finding("two_writers", f"nodes_hold_different_rows_of_{table}", cell)


def _answers(entries: Sequence[Entry], answers: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """An answer equals a copy that its provider holds, and one person's answers are one person's.

    ``answers`` names for each provided line the registered copies that are equal to it.
    """
    about: dict[int, set[str] | None] = {}
    for line, case in dict.fromkeys((line, entry["case"]) for entry, line, _, _ in _told(entries)):
        if line not in answers:
            continue
        if not answers[line]:
            yield Finding("wrong", "answer_of_no_registered_copy", line)
            continue
        before = about.get(case)
        about[case] = set(answers[line]) if before is None else before & set(answers[line])
        if not about[case]:
            yield Finding("wrong", "answers_of_two_people", line)
            about[case] = None


def outages(entries: Sequence[Entry], by: str, begun: float, ended: float) -> dict[str, float]:
    """Return the longest time without an acknowledgement, in seconds, for each value of the field ``by``."""
    instants: dict[str, list[float]] = {entry[by]: [] for entry in entries}
    for entry in entries:
        if entry["e"] == "told" and begun < entry["t"] < ended:
            instants[entry[by]].append(entry["t"])
    return {
        name: round(max(b - a for a, b in zip([begun, *at], [*at, ended], strict=True)), 2)
        for name, at in sorted(instants.items())
        for at in [sorted(at)]
    }
