"""Each mistake in a site file that would cost data or a failover is refused, with its place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.replication.site import Site
from chukan.replication.site_file import parse, read
from chukan.replication.site_rules import check

Changed = Callable[..., Site]
FAR_EAST = '  { name = "ew2", host = "west-2", port = 10433, rest_port = 10809 },\n'
FAR_WEST = '  { name = "we2", host = "east-2", port = 10433, rest_port = 10809 },\n'
SMALL = ((FAR_EAST, ""), (FAR_WEST, ""), ('"2+2"', '"2+1"'))


def found(site: Site) -> list[tuple[str, str | None]]:
    return [(problem.code, problem.pointer) for problem in check(site)]


@pytest.mark.requirement("PLT-01")
def test_a_good_site_has_nothing_wrong(changed: Changed) -> None:
    assert found(changed()) == []


def test_a_cell_more_is_a_few_lines(changed: Changed) -> None:
    more = """[cells.east2]
home = "east"
nodes = [
  { name = "f1", host = "east-1", port = 10434, rest_port = 10810 },
  { name = "f2", host = "east-2", port = 10434, rest_port = 10810 },
  { name = "fw1", host = "west-1", port = 10434, rest_port = 10810 },
  { name = "fw2", host = "west-2", port = 10434, rest_port = 10810 },
]

[[exchanges]]
name = "exchange-east\""""
    site = changed(('[[exchanges]]\nname = "exchange-east"', more))
    assert found(site) == []
    assert list(site.cells) == ["east", "west", "east2"]


def test_a_member_name_of_two_cells_is_refused(changed: Changed) -> None:
    assert found(changed(('name = "w1"', 'name = "e1"'))) == [("site_name_twice", "/cells/west/nodes/0/name")]


def test_a_node_and_an_etcd_member_of_one_name_are_refused(changed: Changed) -> None:
    assert found(changed(('name = "e2"', 'name = "etcd-west"'))) == [("site_name_twice", "/cells/east/nodes/1/name")]


@pytest.mark.parametrize(
    ("passage", "pointer"),
    [
        (('{ name = "e1", host = "east-1"', '{ name = "e1", host = "east-9"'), "/cells/east/nodes/0/host"),
        (('[hosts.east-2]\nsite = "east"', '[hosts.east-2]\nsite = "north"'), "/hosts/east-2/site"),
        (('[cells.west]\nhome = "west"', '[cells.west]\nhome = "witness"'), "/cells/west/home"),
    ],
)
def test_a_name_that_is_not_defined_is_refused(changed: Changed, passage: tuple[str, str], pointer: str) -> None:
    assert found(changed(passage)) == [("site_name_unknown", pointer)]


def test_two_listeners_on_one_port_are_refused(changed: Changed) -> None:
    site = changed(('{ name = "we1", host = "east-1", port = 10433', '{ name = "we1", host = "east-1", port = 10432'))
    assert found(site) == [("site_address_twice", "/cells/west/nodes/2/port")]


def test_a_port_of_outgoing_connections_is_refused(changed: Changed) -> None:
    site = changed(
        ('[[exchanges]]\nname = "exchange-west"', '[[exchanges]]\nagency_port = 40443\nname = "exchange-west"')
    )
    assert found(site) == [("site_port_high", "/exchanges/1/agency_port")]


def test_an_even_etcd_is_refused(changed: Changed) -> None:
    line = '  { name = "etcd-witness", host = "witness-1" },\n'
    assert ("site_etcd", "/etcd/members") in found(changed((line, "")))
    assert found(changed((line, line + '  { name = "etcd-east2", host = "east-2" },\n'))) == [
        ("site_etcd", "/etcd/members")
    ]


def test_a_site_with_the_majority_of_etcd_is_refused(changed: Changed) -> None:
    line = '  { name = "etcd-witness", host = "witness-1" },\n'
    more = line + '  { name = "etcd-east2", host = "east-2" },\n  { name = "etcd-east3", host = "east-2" },\n'
    assert ("site_etcd", "/etcd/members") in found(changed((line, more)))


def test_without_the_witness_no_etcd_survives_a_centre(changed: Changed) -> None:
    site = changed(('name = "etcd-witness", host = "witness-1"', 'name = "etcd-east2", host = "east-2"'))
    assert ("site_etcd", "/etcd/members") in found(site)


def test_one_synchronous_standby_could_be_the_local_one_alone(changed: Changed) -> None:
    site = changed(("strict = true", "strict = true\nsynchronous_node_count = 1"))
    assert found(site) == [("site_standbys", "/synchronous_node_count")] * 2


def test_more_synchronous_standbys_than_there_are_others_are_refused(changed: Changed) -> None:
    site = changed(("strict = true", "strict = true\nsynchronous_node_count = 4"))
    assert found(site) == [("site_standbys", "/synchronous_node_count")] * 2


def test_a_far_half_of_one_node_is_for_sandboxes_and_not_strict(changed: Changed) -> None:
    sandbox = ("strict = true", "strict = false\nsandbox = true")
    assert found(changed(*SMALL, sandbox)) == []
    assert found(changed(*SMALL, ("strict = true", "strict = false"))) == [("site_topology", "/topology")]
    assert found(changed(*SMALL, ("strict = true", "strict = true\nsandbox = true"))) == [("site_strict", "/strict")]


def test_a_real_site_is_strict(changed: Changed) -> None:
    assert found(changed(("strict = true", "strict = false"))) == [("site_strict", "/strict")]


def test_a_missing_far_node_is_refused(changed: Changed) -> None:
    assert found(changed((FAR_EAST, ""))) == [("site_topology", "/cells/east/nodes")]


def test_a_node_at_the_witness_is_refused(changed: Changed) -> None:
    site = changed(('{ name = "ew2", host = "west-2"', '{ name = "ew2", host = "witness-1"'))
    assert found(site) == [("site_topology", "/cells/east/nodes")]


def test_far_nodes_stand_behind_those_at_home(changed: Changed) -> None:
    one = '  { name = "e2", host = "east-2" },\n'
    other = '  { name = "ew1", host = "west-1", port = 10433, rest_port = 10809 },\n'
    assert found(changed((one + other, other + one))) == [("site_topology", "/cells/east/nodes")]


def test_each_centre_has_an_exchange(changed: Changed) -> None:
    assert found(changed(('name = "exchange-west"\nhost = "west-1"', 'name = "exchange-west"\nhost = "east-2"'))) == [
        ("site_topology", "/exchanges")
    ]


def test_a_ttl_below_patronis_floor_is_refused(changed: Changed) -> None:
    assert found(changed(("[network]", "[timers]\nttl_s = 15\n\n[network]"))) == [("site_timers", "/timers/ttl_s")]
    slow = "[timers]\nttl_s = 25\nloop_wait_s = 10\nretry_timeout_s = 10\n\n[network]"
    problems = check(changed(("[network]", slow)))
    assert [(problem.code, problem.limit) for problem in problems] == [("site_timers", 30)]


def test_two_sites_of_one_tree_are_refused(changed: Changed) -> None:
    assert found(changed(('directory = "west"', 'directory = "east"'))) == [("site_name_twice", "/centres")]


@pytest.mark.parametrize(
    ("passage", "code", "pointer"),
    [
        (('directory = "west"', 'title2 = "west"'), "setting_unknown", "/centres/west/title2"),
        (('directory = "witness"\n', ""), "setting_missing", "/witness/directory"),
        (('address = "192.0.2.12"', 'address = "192.0.2.12"\nadress = "x"'), "setting_unknown", "/hosts/east-2/adress"),
        (('topology = "2+2"', 'topology = "3+1"'), "setting_invalid", "/topology"),
        (('token = "towns"', 'token = "Two Towns"'), "setting_invalid", "/etcd/token"),
        (('home = "east"', "home = 1"), "setting_invalid", "/cells/east/home"),
        (('{ name = "e1", host = "east-1" }', '{ name = "e1" }'), "setting_missing", "/cells/east/nodes/0/host"),
    ],
)
def test_a_wrong_form_is_refused_with_its_pointer(
    changed: Changed, passage: tuple[str, str], code: str, pointer: str
) -> None:
    with pytest.raises(Problem) as raised:
        changed(passage)
    assert (raised.value.code, raised.value.pointer) == (code, pointer)


def test_no_problem_quotes_a_value_of_the_file(changed: Changed) -> None:
    with pytest.raises(Problem) as raised:
        changed(('topology = "2+2"', 'topology = "secret-word"'))
    assert "secret-word" not in str(raised.value.as_dict())


def test_text_that_is_no_toml_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(Problem) as raised:
        parse("name = 1\nname == 2\n", tmp_path)
    assert (raised.value.code, raised.value.line) == ("settings_unreadable", 2)


def test_reading_refuses_what_the_check_finds(tmp_path: Path, text: str) -> None:
    file = tmp_path / "site.toml"
    file.write_text(text.replace("strict = true", "strict = false"), encoding="utf-8")
    with pytest.raises(Problem) as raised:
        read(file)
    assert raised.value.code == "site_strict"
    file.write_text(text, encoding="utf-8")
    assert read(file).centres["east"].directory == tmp_path / "east"
