"""The packet filter as text and as a table: what it says, how it is loaded, and that every change by hand is found."""

import time
from pathlib import Path

import msgspec
import pytest

from chukan.errors import Problem
from chukan.tests.support.link_spaces import spaces
from chukan.vpn import firewall
from chukan.vpn.firewall import Ruleset
from chukan.vpn.nft import Difference, Firewall, _by_time

RULES = Ruleset(
    tunnels=frozenset({"wg0", "ipsec0"}),
    outer="outer",
    inner="inner",
    listen_ports=frozenset({51820, 51821}),
    ipsec=True,
    services=frozenset({("10.255.0.1", 8443), ("10.255.0.1", 8445)}),
    health_ports=frozenset({8445}),
    prefixes=frozenset({"10.64.0.1/32", "fd6b:7573:1:100::/56"}),
)


@pytest.mark.parametrize("prefix", ["10.64.0.0/24", "fd6b:7573:1:100::/64", "10.64.0.1/31", "nonsense", "10.64.0.1/33"])
def test_only_a_whole_prefix_of_a_link_can_be_let_in(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"link|network|permitted|host bits|appear"):
        firewall.element(prefix)


def test_a_ruleset_that_could_be_none_is_refused() -> None:
    for wrong in (
        {"tunnels": frozenset()},
        {"services": frozenset()},
        {"outer": "wg0"},
        {"prefixes": frozenset({"::/0"})},
    ):
        with pytest.raises(ValueError, match=r"a ruleset has|a link has"):
            msgspec.structs.replace(RULES, **wrong)


def test_a_prefix_comes_back_from_its_element() -> None:
    for prefix in RULES.prefixes:
        element = firewall.element(prefix)
        assert firewall.prefix_of(element.suffix, element.value) == prefix


def test_a_load_is_one_transaction_that_replaces_the_table() -> None:
    commands = firewall.load(RULES)
    assert [next(iter(each)) for each in commands[:3]] == ["add", "delete", "add"]
    assert all("table" in each[next(iter(each))] for each in commands[:3])
    assert {next(iter(each)) for each in commands[3:]} == {"add"}


def test_a_removal_adds_first_so_that_what_is_gone_already_is_no_error() -> None:
    commands = firewall.change(remove=["10.64.0.1/32"])
    assert [next(iter(each)) for each in commands] == ["add", "delete", "add", "delete"]
    assert firewall.change() == []


def rules_of(chain: str, ruleset: Ruleset = RULES) -> list[str]:
    rules = [each["add"]["rule"] for each in firewall.load(ruleset) if "rule" in each.get("add", {})]
    return [msgspec.json.encode(rule["expr"]).decode() for rule in rules if rule["chain"] == chain]


def test_nothing_of_a_packet_is_judged_before_whose_it_is() -> None:
    assert all("tenant_in" in rule or "unknown" in rule for rule in rules_of("from_tunnel"))
    assert any("established" in rule for rule in rules_of("tenant"))
    refused = next(place for place, rule in enumerate(rules_of("tenant")) if "@refused" in rule)
    known = next(place for place, rule in enumerate(rules_of("tenant")) if "established" in rule)
    assert refused < known, "a drain must end connections that are open"


def test_esp_and_the_ports_of_ike_are_open_only_with_ipsec() -> None:
    with_ipsec = " ".join(rules_of("from_outside"))
    without = " ".join(rules_of("from_outside", msgspec.structs.replace(RULES, ipsec=False)))
    assert "esp" in with_ipsec
    assert "[500,4500,51820,51821]" in with_ipsec
    assert "esp" not in without
    assert "4500" not in without


async def test_a_table_is_found_changed_whoever_changed_it() -> None:
    with spaces() as made:
        made.make("one")
        wall = Firewall(made.name("one"))
        assert await wall.compare(RULES) == Difference(table=True)
        assert (await wall.counters()).traffic == {}
        await wall.load(RULES)
        assert not await wall.compare(RULES)
        # A controller that is started anew finds the table as it is and leaves it alone.
        assert not await Firewall(made.name("one")).compare(RULES)
        other = msgspec.structs.replace(RULES, listen_ports=frozenset({51820}))
        assert (await wall.compare(other)).table

        async def repaired(*by_hand: str) -> Difference:
            made.run("one", "nft", *by_hand)
            found = await wall.compare(RULES)
            await wall.repair(RULES, found)
            assert not await wall.compare(RULES)
            return found

        for by_hand in (
            ("flush", "ruleset"),
            ("flush", "chain", "inet", "chukan", "tenant"),
            ("add", "rule", "inet", "chukan", "tenant", "accept"),
            ("add", "element", "inet", "chukan", "service", "{ 10.255.0.1 . 22 }"),
            ("delete", "chain", "inet", "chukan", (await _mark(wall))),
            ("add", "chain", "inet", "chukan", "forward", "{ policy accept; }"),
        ):
            assert await repaired(*by_hand) == Difference(table=True), by_hand
        found = await repaired("delete", "element", "inet", "chukan", "tenant_out", "{ 10.64.0.1 }")
        assert found == Difference(missing=frozenset({"10.64.0.1/32"}))
        found = await repaired("add", "element", "inet", "chukan", "tenant_in6", "{ fd6b:7573:9:100:: }")
        assert found == Difference(extra=frozenset({"fd6b:7573:9:100::/56"}))
        found = await repaired("add", "element", "inet", "chukan", "refused", "{ 8443 }")
        assert found == Difference(drain=True, refused=frozenset({8443}))
        draining = msgspec.structs.replace(RULES, draining=True)
        await wall.repair(draining, await wall.compare(draining))
        assert not await wall.compare(draining)
        await wall.drain(draining, on=False)
        assert await wall.compare(draining) == Difference(drain=True)
        await wall.remove_table()
        await wall.remove_table()
        assert made.run("one", "nft", "list", "ruleset") == ""


LEASED = msgspec.structs.replace(RULES, leased=frozenset({51821}))


async def test_a_leased_port_is_open_for_its_time_and_a_renewal_that_comes_late_opens_nothing() -> None:
    with spaces() as made:
        made.make("one")
        wall = Firewall(made.name("one"))
        await wall.load(LEASED)

        def opened() -> bool:
            return "51821" in made.run("one", "nft", "list", "set", "inet", "chukan", "held")

        with pytest.raises(Problem, match="link_firewall_refused"):
            await wall.hold(LEASED.leased, lambda: 9.0, renew=True)
        assert not opened()
        await wall.hold(LEASED.leased, lambda: 9.9, renew=False)
        assert opened()
        assert not await wall.compare(LEASED), "what goes away by itself is no drift"
        await wall.hold(LEASED.leased, lambda: 1.9, renew=True)
        began = time.monotonic()
        while opened():
            assert time.monotonic() - began < 6.0, "a renewal is for the time that it says, not for a longer one before"
        with pytest.raises(Problem, match="link_firewall_refused"):
            await wall.hold(LEASED.leased, lambda: 9.0, renew=True)
        await wall.hold(LEASED.leased, lambda: 0.9, renew=False)
        assert not opened()
        await wall.hold(LEASED.leased, lambda: 9.0, renew=False)
        for _ in range(2):
            await wall.shut(LEASED.leased)
            assert not opened()
        made.run("one", "nft", "add", "element", "inet", "chukan", "held", "{ 51821 }")
        assert (await wall.compare(LEASED)).table, "somebody opened it for ever"
        await wall.repair(LEASED, Difference(table=True))
        assert not opened()


def test_an_element_that_does_not_go_away_is_drift() -> None:
    timed = {"elem": {"val": 51821, "timeout": 9, "expires": 8}}
    assert _by_time({"elem": [timed]})
    assert not _by_time({"elem": [timed, 51822]})
    assert not _by_time({"elem": [{"elem": {"val": 51822, "comment": "mine"}}]})


async def test_what_asks_the_kernel_too_late_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chukan.vpn.nft._HOLD_TIMEOUT_S", 0.2)
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with pytest.raises(Problem, match="link_firewall_refused"):
        await Firewall(program=str(program)).hold(LEASED.leased, lambda: 9.0, renew=False)


async def _mark(wall: Firewall) -> str:
    listed = [each["chain"]["name"] for each in await wall._list() if "chain" in each]
    return next(name for name in listed if name.startswith("mark_"))


async def test_what_nft_refuses_is_a_problem_that_quotes_no_command(tmp_path: Path) -> None:
    with pytest.raises(Problem) as nowhere:
        await Firewall("ckl-no-such-namespace").load(RULES)
    assert nowhere.value.code == "link_firewall_refused"
    with pytest.raises(Problem) as absent:
        await Firewall(program="nft-that-is-not-there").load(RULES)
    assert "nftables" in (absent.value.expected or "")
    program = tmp_path / "nft"
    program.write_text(
        "#!/bin/sh\ncat >/dev/null\necho 'internal:0:0-0: Error: 10.64.0.1: No space left' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    with pytest.raises(Problem) as refused:
        await Firewall(program=str(program)).load(RULES)
    assert refused.value.expected == "nft: No space left"


async def test_an_nft_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chukan.vpn.nft._TIMEOUT_S", 0.2)
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with pytest.raises(Problem, match="link_firewall_refused"):
        await Firewall(program=str(program)).add(["10.64.0.1/32"])
