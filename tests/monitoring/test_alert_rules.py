"""The alert rules speak of what is exported, in the form that Prometheus reads; each is explained in both languages."""

import math
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml  # type: ignore[import-untyped] # its stubs are a package that nothing else needs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from chukan.clock import SystemClock
from chukan.ops import pgbackrest, pki_life, site_certificates
from chukan.ops.certificates import Authority
from chukan.ops.drills import figures
from chukan.ops.drills.report import Report
from chukan.ops.drills.verdict import Verdict
from chukan.ops.pgbackrest import Made
from chukan.platform.metrics import Metrics
from chukan.platform.textfiles import Textfiles
from chukan.replication.durability import Durability
from chukan.replication.leader import Leader
from chukan.replication.patroni import NodeState
from chukan.replication.primary import CellPicture
from chukan.tenants.states import Side
from chukan.vpn.gateway.kinds import Sighting
from chukan.vpn.gateway.metrics import LinkFigures, Snapshot, render

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "ops" / "monitoring" / "alerts.yml"
PAGES = [ROOT / "docs" / "operators" / name for name in ("alerts.ja.md", "alerts.md")]
SELECTOR = re.compile(r"\b(chukan_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|group_left)\s*\(([^)]*)\)")
MADE = re.compile(r'label_replace\(.*, "(\w+)", "[^"]*", "(\w+)", "[^"]*"\)')
SECTION = r"^## (Chukan\w+)\n(.*?)(?=^## |\Z)"
MUST = {"alert", "expr", "labels", "annotations"}
OF_THE_SCRAPE = {"instance", "job"}


class Sample(NamedTuple):
    """One exported sample without its value."""

    name: str
    labels: dict[str, str]


def exchange() -> str:
    """Return what an exchange exports that was told everything once."""
    metrics = Metrics()
    metrics.request("/v1/x", "GET", 503, 0.1)
    metrics.problem("common_data_stale")
    metrics.refused("normal", "busy")
    metrics.stage("accept_east", 1, 0.1, failed=True)
    metrics.outcome(Side.PROVIDER, "expired")
    metrics.backlog("east", Side.INQUIRER, "permit_requested", 1, 1.0)
    metrics.agency_backlog({1: 1})
    metrics.reviews_lapsing({1: 1})
    metrics.copy_ages({(1, "TM00000000000002"): 1.0})
    metrics.sequencer_age("east", 1.0)
    metrics.evidence_age("east", 1.0)
    metrics.evidence_age("east", 1.0, of="operations")
    metrics.evidence_broken("east", "signing", 1)
    metrics.evidence_broken("east", "cosigning", 1)
    metrics.key_token("east", True)  # noqa: FBT003 - heard as (centre, usable)
    metrics.evidence_broken("east", "sequencing", 1)
    metrics.canary("east", age_s=math.inf, commit_s=math.inf)
    metrics.peer_certificate("patroni-e1", 1.0)
    metrics.authority("agencies", 1.0)
    metrics.revocation_list("agencies", 1.0, 2.0, 3)
    metrics.revocation_list_usable("agencies", usable=True)
    metrics.follow_common_data("east", lambda: 1.0)
    metrics.opening("east", 2, True)  # noqa: FBT003
    states = {
        "e1": NodeState(leads=True, role="primary", state="running", timeline=2, system="1", position=9),
        "e2": None,
        "ew1": NodeState(leads=False, role="replica", state="running", timeline=2, system="1", replayed_at=0.0),
    }
    leader = Leader("e1", 2, "1")
    for level in Durability:
        metrics.cell("east", CellPicture(leader, True, 1.0, 0.0, 0, states, {"e1": "east", "ew1": "west"}, level), 1.0)  # noqa: FBT003
    return metrics.render().decode()


def drills() -> str:
    """Return what a site exports after one drill."""
    verdict = Verdict(
        acknowledged=1, lost=0, duplicates=0, two_writers=0, wrong_answers=0, outage_s={"home-east-near": 1.0},
        after_word_s=None, requests=1, failed_requests=0, refused_requests=0, in_doubt={}, outcomes={}, faults=[],
        bounds=[], claims=[],
    )  # fmt: skip
    report = Report(
        id="1", scenario="switchover", title_ja="", title_en="", breaks_ja="", breaks_en="", topology="2+2", site="lab",
        begun_at="2026-11-23T01:02:03.000+00:00", seconds=1.0, version="", verdict=verdict, passed=True, load_from=0.0,
        load_to=1.0, events=[], changes=[], stretches=[], gaps=[],
    )  # fmt: skip
    return figures.render([report])


def textfiles(folder: Path) -> str:
    """Return what backups and a look at a site write, as an exchange serves it with its own count of files."""
    pgbackrest.write_metrics(folder / "backup.prom", [Made("east", "east", "x", "full", 1, 2, 3, damaged=False)])
    site_certificates.write(folder / "site.prom", {"etcd-east": 1.0})
    authority = Authority.create(folder / "pki", "Example", SystemClock())
    authority.issue_client("town-system")
    pki_life.write_textfile(folder / "pki.prom", authority, authority.register.read().entries.values())
    registry = CollectorRegistry()
    Textfiles(folder, registry).look()
    return generate_latest(registry).decode()


def gateway(centre: str, *, up: bool) -> str:
    """Return what a gateway exports that knows one link."""
    sighting = Sighting(endpoint="203.0.113.1:51820", handshake_at=99.0 if up else None)
    link = LinkFigures(link="131016-1", body="131016", active=True, sighting=sighting, valid_until=200.0)
    snapshot = Snapshot(
        centre=centre, now_s=100.0, links=[link], drops={"port": 1}, passes={"done": 1},
        drift={(None, "rogue"): 1, ("131016-1", "stolen"): 1},
        pass_age_s=1.0, desired_age_s=1.0, service_held=True,
    )  # fmt: skip
    return render(snapshot).decode()


def exported() -> list[Sample]:
    """Return every sample of all."""
    with tempfile.TemporaryDirectory() as folder:
        links = gateway("east", up=True), gateway("west", up=False)
        texts = (exchange(), drills(), textfiles(Path(folder)), *links)
    families = [family for text in texts for family in text_string_to_metric_families(text)]
    return [Sample(sample.name, sample.labels) for family in families for sample in family.samples]


def rules() -> list[dict[str, Any]]:
    """Return all rules of the file."""
    document = yaml.safe_load(RULES.read_text("utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def unmet(expression: str, samples: list[Sample]) -> list[str]:
    """Return the selectors of an expression that nothing exported could meet, and labels that nothing has."""
    found = []
    known = set(OF_THE_SCRAPE)
    for name, matchers in SELECTOR.findall(expression):
        mine = [sample for sample in samples if sample.name == name]
        known |= {label for sample in mine for label in sample.labels}
        wanted = MATCHER.findall(matchers)
        if not any(all(meets(sample.labels, *matcher) for matcher in wanted) for sample in mine):
            found.append(f"{name}{{{matchers}}}")
    labels = {label.strip() for group in GROUPING.findall(expression) for label in group.split(",")} - {""}
    made = MADE.findall(expression)
    labels |= {source for _, source in made}
    return found + sorted(labels - known - {label for label, _ in made})


def meets(labels: dict[str, str], label: str, how: str, value: str) -> bool:
    """Tell whether a sample's labels meet one matcher; a label that it does not have meets none."""
    if label not in labels:
        return False
    if how == "=~":
        return re.fullmatch(value, labels[label]) is not None
    return (labels[label] == value) is (how == "=")


@pytest.mark.requirement("OPS-02")
def test_every_rule_speaks_of_what_is_exported() -> None:
    samples = exported()
    found = {rule["alert"]: unmet(rule["expr"], samples) for rule in rules()}
    assert {name: missing for name, missing in found.items() if missing} == {}


def test_what_is_not_exported_is_noticed() -> None:
    samples = exported()
    assert unmet("chukan_redy == 0", samples)
    assert unmet('chukan_cell_durability{level="three-centres"} == 1', samples)
    assert unmet('chukan_ready{colour="red"} == 1', samples)
    assert unmet("max by (planet) (chukan_ready) == 0", samples) == ["planet"]
    assert not unmet("max by (instance) (chukan_ready) == 0", samples)
    renamed = 'max by (planet) (label_replace(chukan_ready, "planet", "$1", "{}", "(.*)"))'
    assert unmet(renamed.format("colour"), samples) == ["colour"]
    assert not unmet(renamed.format("instance"), samples)


def test_the_rules_have_the_form_that_prometheus_reads() -> None:
    document = yaml.safe_load(RULES.read_text("utf-8"))
    assert set(document) == {"groups"}
    names = [group["name"] for group in document["groups"]]
    assert len(names) == len(set(names))
    for rule in rules():
        assert MUST <= set(rule) <= MUST | {"for"}
        assert re.fullmatch(r"Chukan[A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"\d+[smhd]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"].count(" / ") == 1
        for one, other in ("()", "{}", "[]"):
            assert rule["expr"].count(one) == rule["expr"].count(other)
    alerts = [rule["alert"] for rule in rules()]
    assert len(alerts) == len(set(alerts)) > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_alert_has_its_section_with_its_expression(page: Path) -> None:
    sections = dict(re.findall(SECTION, page.read_text("utf-8"), re.MULTILINE | re.DOTALL))
    told = {name: re.search(r"```promql\n(.*?)\n```", text, re.DOTALL) for name, text in sections.items()}
    shown = {name: found and found[1] for name, found in told.items()}
    assert shown == {rule["alert"]: rule["expr"] for rule in rules()}
