"""Reads what everybody holds when the killing is over: both sides by the agency API, the network, and every database.

Standard library only; the API is read as /openapi.json describes it, the tables as tenants/sql makes them.
"""

import hashlib
import http.client
import json
import ssl
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from independent_judge import OPEN
from independent_lab import Lab, wait

PAGE = 1000
PAGES_MAX = 1000
CALL_S = 10.0
PATIENCE_S = 90.0
_DIGEST = (
    "SELECT count(*) || ' ' || coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))), '') FROM chukan.{} t"
)
TABLES = ("queries", "records", "provisions", "answers", "permits_used", "log", "inquiry_work", "provision_work")
FAILURES = (OSError, http.client.HTTPException, ValueError)


class Reply(NamedTuple):
    """What came back."""

    status: int
    body: Any
    durability: str


class Caller:
    """One agency's system at one address, over one connection that is kept; not for two threads at once."""

    def __init__(self, url: str, agency: str, context: ssl.SSLContext | None, timeout_s: float = CALL_S) -> None:
        """``context`` None: plain HTTP, for the sandbox network's administration."""
        place = urllib.parse.urlsplit(url)
        self._base = f"/v1/agencies/{agency}" if agency else ""
        host, port = str(place.hostname), int(place.port or 0)
        self._connection = (
            http.client.HTTPConnection(host, port, timeout=timeout_s)
            if context is None
            else http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        )

    def call(self, method: str, path: str, body: Any = None, key: str = "") -> Reply:
        """Send once; raises one of ``FAILURES`` where no whole answer came."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if method == "POST":
            headers["Idempotency-Key"] = key or str(uuid.uuid4())
        try:
            content = None if body is None else json.dumps(body).encode()
            self._connection.request(method, self._base + path, content, headers)
            reply = self._connection.getresponse()
            read = reply.read()
            return Reply(reply.status, json.loads(read) if read else None, reply.headers.get("Chukan-Durability", ""))
        except BaseException:
            self._connection.close()
            raise


class Place:
    """Whom the writer may be, and where: ``connection.json``."""

    def __init__(self, file: Path) -> None:
        """Read it."""
        told = json.loads(file.read_text(encoding="utf-8"))
        self.urls = {exchange["name"]: exchange["agency_url"] for exchange in told["exchanges"]}
        self.agencies: dict[str, Any] = told["agencies"]
        self.affairs: list[dict[str, Any]] = told["affairs"]
        self._ca, self._admin = told["ca"], told["network_admin_url"]
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._own = threading.local()

    def caller(self, agency: str, exchange: str) -> Caller:
        """Return an agency's system, at one exchange."""
        if agency not in self._contexts:
            context = ssl.create_default_context(cafile=self._ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(self.agencies[agency]["certificate"], self.agencies[agency]["key"])
            self._contexts[agency] = context
        return Caller(self.urls[exchange], agency, self._contexts[agency])

    def _kept(self, agency: str, exchange: str) -> Caller:
        """Return this thread's own caller: a new connection for each call would be most of the work."""
        kept: dict[tuple[str, str], Caller] = self._own.__dict__.setdefault("callers", {})
        if (agency, exchange) not in kept:
            kept[agency, exchange] = self.caller(agency, exchange)
        return kept[agency, exchange]

    def patient(self, agency: str, method: str, path: str, body: Any = None, key: str = "") -> Reply:
        """Call each exchange in turn until one answers with anything but "later"; status 0 when nobody does in time."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for exchange in self.urls:
                try:
                    reply = self._kept(agency, exchange).call(method, path, body, key)
                except FAILURES:
                    continue
                if reply.status < 500 and reply.status not in {409, 429}:
                    return reply
            wait(1.0)
        return Reply(0, None, "")

    def lines(self, agency: str) -> dict[str, list[Any]]:
        """Return an agency's query lines, as it is shown them; a line shown twice is there twice."""
        return _by_id(
            self._pages(agency, "/queries", "lines", lambda one: [one["id"], one["state"], one.get("outcome")])
        )

    def records(self, agency: str) -> list[dict[str, Any]]:
        """Return an agency's provision records."""
        wanted = ("id", "side", "outcome", "reference", "amends", "position")
        return list(self._pages(agency, "/records", "records", lambda one: {name: one.get(name) for name in wanted}))

    def _pages(self, agency: str, path: str, of: str, make: Any) -> Iterator[Any]:
        after = ""
        for _ in range(PAGES_MAX):
            query = urllib.parse.urlencode({"limit": PAGE, **({"after": after} if after else {})})
            page = self.patient(agency, "GET", f"{path}?{query}").body
            yield from (make(one) for one in page[of])
            after = page.get("next") or ""
            if not after:
                return

    def network(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the records of the sandbox's network, as its administration shows them."""
        found: list[dict[str, Any]] = []
        caller = Caller(self._admin, "", None)
        for _ in range(PAGES_MAX):
            page = caller.call("GET", f"/admin/records?after={after}&limit={PAGE}").body
            for one in page["records"]:
                wanted = {
                    name: one.get(name)
                    for name in ("position", "request", "reference", "inquirer", "provider", "outcome")
                }
                told = {"notified": bool(one.get("notified_at")), "provided": bool(one.get("provided_at"))}
                found.append({**wanted, **told})
            if page.get("next") is None:
                return found
            after = page["next"]
        return found

    def copies(self, agency: str, kind: str) -> list[dict[str, Any]]:
        """Return all copies of a kind that an agency has registered, in the clear, as only it may read them."""
        found: list[dict[str, Any]] = []
        after = None
        for _ in range(PAGES_MAX):
            body = {"kind": kind, "limit": PAGE, **({"after": after} if after else {})}
            page = self.patient(agency, "POST", "/copies/export", body).body
            found += page["copies"]
            after = page.get("next")
            if after is None:
                return found
        return found


def _by_id(rows: Iterator[list[Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return found


class Before(NamedTuple):
    """What was there before the writer began: it is not the writer's."""

    lines: dict[str, set[str]]
    records: dict[str, set[str]]
    network: int


def look_before(place: Place) -> Before:
    """Note what is there."""
    rows = place.network()
    return Before(
        {agency: set(place.lines(agency)) for agency in place.agencies},
        {agency: {record["id"] for record in place.records(agency)} for agency in place.agencies},
        max((row["position"] for row in rows), default=0),
    )


def read(place: Place, before: Before) -> dict[str, Any]:
    """Read everything that is new, by the API."""
    lines = {
        agency: [row for one, rows in place.lines(agency).items() if one not in old for row in rows]
        for agency, old in before.lines.items()
    }
    records = {
        agency: [record for record in place.records(agency) if record["id"] not in old]
        for agency, old in before.records.items()
    }
    cells = {agency: row["cell"] for agency, row in place.agencies.items()}
    return {"lines": lines, "records": records, "network": place.network(before.network), "cells": cells}


def read_until_still(place: Place, before: Before, timeout_s: float) -> dict[str, Any]:
    """Read until every line has ended and is recorded, or the time is over: then it is judged as it is."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = read(place, before)
        ours = {row["id"] for of in seen["records"].values() for row in of}
        waiting = [row for of in seen["lines"].values() for row in of if row[1] in OPEN or row[0] not in ours]
        going = [row for row in seen["network"] if row["outcome"] is None]
        if not (waiting or going) or time.monotonic() > deadline:
            return seen
        wait(2.0)


def read_nodes(lab: Lab, tries: int = 20) -> dict[str, Any]:
    """Return what each database holds; again while the nodes of a cell differ, since they replay what still comes."""
    for _ in range(tries):
        found = {node.name: _node(lab, node) for node in lab.nodes}
        digests = {cell: [rows["tables"] for rows in found.values() if rows["cell"] == cell] for cell in lab.database}
        if all(one == of[0] for of in digests.values() for one in of):
            return found
        wait(1.0)
    return found


def _node(lab: Lab, node: Any) -> dict[str, Any]:
    tables = {table: lab.sql(node, _DIGEST.format(table)) or f"{node.name} does not answer" for table in TABLES}
    ids = {what: (lab.sql(node, f"SELECT id FROM chukan.{what}") or "").split() for what in ("queries", "records")}
    timeline = lab.sql(node, "SELECT timeline_id FROM pg_control_checkpoint()")
    return {"cell": node.cell, "timeline": timeline, "tables": tables, **ids}


def answers(place: Place, lines: dict[str, list[Any]], kinds: dict[str, tuple[str, str]]) -> dict[str, list[str]]:
    """Collect every provided line, and name the registered copies that its content is equal to.

    ``kinds`` tells for each line its kind and provider. A missing item counts as equal to a reason code (未設定事由).
    """
    registered: dict[tuple[str, str], list[dict[str, Any]]] = {}
    found: dict[str, list[str]] = {}
    for agency, of in lines.items():
        for line, _, outcome in of:
            if outcome not in {"provided", "provided_with_gaps"} or line not in kinds:
                continue
            kind, provider = kinds[line]
            if (kind, provider) not in registered:
                registered[kind, provider] = place.copies(provider, kind)
            body = place.patient(agency, "POST", f"/queries/{line}/collect").body
            found[line] = _equal(body, registered[kind, provider])
    return found


def _equal(body: Any, registered: list[dict[str, Any]]) -> list[str]:
    content = next((one.get("content") for one in (body or {}).get("lines", [])), None)
    copies = [] if not content else content["copies"]
    people = [{one["addressee"] for one in registered if _same(copy, one)} for copy in copies]
    both = set.intersection(*people) if people else set()
    return sorted(hashlib.sha256(one.encode()).hexdigest()[:12] for one in both)


def _same(answer: dict[str, Any], copy: dict[str, Any]) -> bool:
    if (answer.get("period", ""), answer["effective_from"]) != (copy.get("period", ""), copy["effective_from"]):
        return False
    items = copy["items"]
    return all(
        items.get(code) == value or (isinstance(value, dict) and code not in items)
        for code, value in answer["items"].items()
    )
