"""What the demo says at the end: the result as tables, where everything is, and three calls to try at once."""

import shlex
from typing import Final

from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import EXCHANGES, Running
from chukan.ops.demo.questions import Planned
from chukan.ops.demo.screen import Screen
from chukan.ops.demo.tally import Tally

_MEANINGS: Final = {
    "provided": "提供 answered in full",
    "provided_with_gaps": "未設定あり answered; gaps carry a reason code",
    "no_record": "該当なし the provider holds none of it",
    "no_code": "符号なし no linkage code at one of the two",
    "not_permitted": "照会不可 not on the matching list",
    "stopped": "提供停止 a kill switch stands on it",
    "refused": "提供不可 refused by the provider's officers",
    "bad_request": "形式不備 refused at once, without a record",
    "expired": "期限切れ nobody decided in time",
    "cancelled": "中断 taken back by the inquirer",
    "failed": "失敗 went wrong",
    "open": "no final outcome yet",
    "under_review": "審査中 held for officers, before its outcome",
}
"""What each outcome means, in the order in which they are shown; short enough for a terminal of 80 columns."""


def show_result(screen: Screen, tally: Tally) -> None:
    """Show the counts."""
    shown = [name for name in _MEANINGS if name in tally.outcomes]
    shown += [name for name in tally.outcomes if name not in _MEANINGS]
    rows = {name: (tally.outcomes[name], _MEANINGS.get(name, "")) for name in shown}
    for name, number in sorted(tally.reviews.items()):
        rows[f"  → {name}"] = (number, "decided by two officers")
    rows["withheld"] = (tally.withheld, "不開示 of them: in no view of the person's own")
    screen.counts(f"{tally.queries:,} queries by outcome, {tally.cross_cell:,} between cells", rows)
    if tally.links is not None:
        screen.counts(
            "Links",
            {
                "up": (tally.links.up, "municipalities whose device has both tunnels up"),
                "through": (
                    tally.links.queries_through_tunnels,
                    "queries that came through a tunnel",
                ),
            },
        )
    screen.counts(
        "Logs of records (証跡)",
        {"cosigned": (tally.logs_cosigned, "agencies whose log one centre signed and the other cosigned")},
    )
    screen.counts(
        "Provision records of this run",
        {
            "inquirers": (tally.records_inquirer, "one for each line that was accepted"),
            "providers": (tally.records_provider, "one for each line that reached its provider"),
            "network": (tally.records_network, "kept by the network, in neither cell"),
            "agree": (tally.records_reconciled, "lines about which all parties tell the same"),
            "differ": (sum(tally.differences.values()), "should be 0"),
            "amended": (tally.amendments, "records that were amended later"),
        },
    )


def show_addresses(screen: Screen, running: Running) -> None:
    """Show where everything listens and lies, who may act with which certificate, and what this is not."""
    screen.title("Agencies, and the certificates that act for them")
    pki = running.place.pki / "clients"
    screen.rows(
        [
            (agency.code, agency.name, agency.home_centre or "", cast.system_of(agency.code))
            for agency in cast.agencies()
        ]
    )
    screen.tell("  and two officers each: officer-BODY-head-1 and -2, …-board-…, …-joint-…")
    screen.say(f"  certificate.pem and key.pem of each lie in a folder of its name under {pki}")
    screen.title("Where everything is")
    addresses = running.addresses
    for exchange in EXCHANGES:
        screen.say(f"  {exchange:<15} {addresses.agency_url(exchange)}  (documentation: /openapi.json)")
        screen.say(f"  {'':<15} {addresses.health_url(exchange)}/readyz, /healthz, /metrics")
    screen.say(f"  {'network':<15} {addresses.network_admin_url}/admin/state")
    screen.say(f"  {'for clients':<15} {running.place.connection}")
    screen.say(f"  {'for operators':<15} ./chukan agency list --config {running.place.operator}")
    screen.say(f"  {'trusted root':<15} {running.credentials.authority.trusted}")
    screen.say(f"  {'logs':<15} {running.place.log}")
    screen.tell(
        "\nA sandbox on one machine and one disk: what is acknowledged is durable here, not in two centres; master keys"
        " lie in files, source addresses are not checked, and nobody in it is real."
    )


def curl_calls(running: Running, query: Planned) -> list[tuple[str, str]]:
    """Return three calls with what each does: about one resident of a query that will be answered."""
    agency = query.inquirer
    issued = running.credentials.clients[cast.system_of(agency)]
    trusted = running.credentials.authority.trusted
    base = f"{running.addresses.home_url(agency)}/v1/agencies/{agency}"
    identity = (
        f"--cacert {shlex.quote(str(trusted))} --cert {shlex.quote(str(issued.certificate))} "
        f"--key {shlex.quote(str(issued.key))}"
    )
    line = query.line
    codes = f'{{"lines":[{{"addressee":"{line.addressee}"}}]}}'
    condition = ",".join(
        f'"{name}":"{value}"'
        for name, value in (("period", line.condition.period), ("year", line.condition.year))
        if value
    )
    asked = (
        f'{{"collect":true,"lines":[{{"addressee":"{line.addressee}","kind":"{line.kind}","provider":"{line.provider}",'
        f'"affair":"{line.affair}","procedure":"{line.procedure}","department":"窓口","condition":{{{condition}}}}}]}}'
    )
    post = "-H 'Content-Type: application/json'"
    key = '-H "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)"'
    name, other = cast.entry(agency).name, cast.entry(line.provider).name
    return [
        (f"Has {name} a linkage code for this person?", f"curl -sS {identity} {post} -d '{codes}' {base}/codes/search"),
        (
            f"{name} asks {other} about them, and waits for the answer:",
            f"curl -sS {identity} {post} {key} -H 'Prefer: wait=10' -d '{asked}' {base}/queries",
        ),
        (f"The provision records of {name}:", f"curl -sS {identity} '{base}/records?limit=3'"),
    ]


def show_calls(screen: Screen, calls: list[tuple[str, str]], agency: str) -> None:
    """Show the calls so that they can be copied, and what does the same for an agency without curl."""
    screen.title("Try it (each is one line; in another terminal, from this folder)")
    screen.say("\n# Ask about an example person, and compare everybody's records:")
    screen.say(f"./chukan client query --agency {agency}\n./chukan reconcile")
    for text, call in calls:
        screen.say(f"\n# {text}\n{call}")
