"""The table of the links in a site file: what must hold of it, and what gateways and exchanges are given."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from chukan.ops.centres.layout import lab_site, site_file
from chukan.ops.centres.link_picture import GatewayPicture, complaints, read
from chukan.ops.centres.wires import Namespaces
from chukan.replication import render, render_gateway
from chukan.replication.consequences import explain
from chukan.replication.site import Site
from chukan.replication.site_file import parse
from chukan.replication.site_rules import check
from chukan.settings import load
from chukan.vpn.gateway import config

Changed = Callable[..., Site]
GATEWAYS = """
[hosts.gateway-east]
site = "east"
address = "192.0.2.51"

[hosts.gateway-west]
site = "west"
address = "192.0.2.52"

[links]

[[links.gateways]]
name = "gateway-east"
host = "gateway-east"
address = "10.255.0.1"
endpoint = "203.0.113.1:51820"

[[links.gateways]]
name = "gateway-west"
host = "gateway-west"
address = "10.255.0.2"

[etcd]"""
LINKED = ("\n[etcd]", GATEWAYS)


@pytest.mark.requirement("TEN-03")
def test_a_site_with_a_gateway_in_each_centre_is_good(changed: Changed) -> None:
    site = changed(LINKED)
    assert check(site) == []
    assert site.links_cell == "east"
    assert site.endpoint("east") == "203.0.113.1:51820"
    assert site.endpoint("west") == "192.0.2.52:51820"
    assert site.services("west") == (("10.255.0.2", "10.255.255.1"), 8443, 8445)


@pytest.mark.parametrize(
    ("passage", "code", "pointer"),
    [
        (('name = "gateway-west"\nhost = "gateway-west"', 'name = "gateway-west"\nhost = "gateway-east"'),
         "site_links", "/links/gateways"),
        (('address = "10.255.0.2"', 'address = "10.255.0.1"'), "site_links", "/links/gateways/1/address"),
        (('address = "10.255.0.2"', 'address = "10.64.0.2"'), "site_links", "/links/gateways/1/address"),
        (("[links]\n", '[links]\nshared = "10.255.0.1"\n'), "site_links", "/links/shared"),
        (("[links]\n", '[links]\ncell = "north"\n'), "site_name_unknown", "/links/cell"),
        (('address = "10.255.0.2"', 'address = "10.255.0.2"\nservice_port = 51820'), "site_links",
         "/links/gateways/1/service_port"),
        (('address = "10.255.0.2"', 'address = "10.255.0.2"\nservice_interface = "chukan"'), "site_links",
         "/links/gateways/1/service_interface"),
        (('host = "gateway-west"', 'host = "gateway-north"'), "site_name_unknown", "/links/gateways/1/host"),
    ],
)  # fmt: skip
def test_each_mistake_is_refused_with_its_place(
    changed: Changed, passage: tuple[str, str], code: str, pointer: str
) -> None:
    found = [(problem.code, problem.pointer) for problem in check(changed(LINKED, passage))]
    assert (code, pointer) in found


def test_a_gateway_is_given_its_own_centre_and_the_cell_of_the_links_alone(changed: Changed, tmp_path: Path) -> None:
    site = changed(LINKED)
    text = render_gateway.gateway(site, "west")
    assert str(site.directory("east")) not in text
    document = tomllib.loads(text)
    assert list(document["cells"]) == ["east"]
    assert set(document["cells"]["east"]) >= {"links_password_file", "members"}
    assert not {"broker_password_file", "app_password_file", "steward_password_file"} & set(document["cells"]["east"])
    file = tmp_path / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    read_back = config.load(file, {})
    assert read_back.services.addresses == ["10.255.0.2", "10.255.255.1"]
    assert read_back.services.next_hop == "192.0.2.21"
    assert read_back.interfaces == ["chukan", "chukan-service"]


def test_an_exchange_with_links_checks_addresses_also_in_a_sandbox(changed: Changed, tmp_path: Path) -> None:
    sandbox = ("strict = true", "strict = true\nsandbox = true")
    for passages, checked, hosts in (((), False, []), ((LINKED,), True, ["10.255.0.1", "10.255.255.1"])):
        file = tmp_path / "exchange.toml"
        file.write_text(render.exchange(changed(sandbox, *passages), "exchange-east"), encoding="utf-8")
        settings = load(file, {})
        assert settings.site.address_check is checked
        assert settings.exchange.link_hosts == hosts


def test_grants_tell_what_the_site_says(changed: Changed, tmp_path: Path) -> None:
    file = tmp_path / "operator.toml"
    file.write_text(render.operator(changed(LINKED)), encoding="utf-8")
    links = load(file, {}).links
    assert links.addresses == {"east": "10.255.0.1", "west": "10.255.0.2"}
    assert (links.service_address, links.service_port, links.health_port) == ("10.255.255.1", 8443, 8445)


def test_only_gateways_log_in_as_gateways_and_only_where_the_links_are(changed: Changed) -> None:
    site = changed(LINKED)
    east, west = (render.pg_hba(site, site.cells[name]) for name in ("east", "west"))
    of_gateways = [line for line in east if render.LINKS_USER in line]
    assert of_gateways == [
        f"hostssl chukan chukan_links {address}/32 scram-sha-256 clientcert=verify-ca"
        for address in ("192.0.2.51", "192.0.2.52")
    ]
    assert not any(render.LINKS_USER in line for line in west)
    assert not any("192.0.2.51" in line for line in east if line not in of_gateways)
    without = changed()
    assert not any(render.LINKS_USER in line for line in render.pg_hba(without, without.cells["east"]))


def test_the_loss_of_a_gateway_is_explained(changed: Changed) -> None:
    told = {each.about: each for each in explain(changed(LINKED))}
    assert "lead their bodies to west" in told["the gateway of east is lost"].en
    assert not any("gateway" in each.about for each in explain(changed()))


def test_the_labs_site_file_keeps_its_links(tmp_path: Path) -> None:
    site = lab_site(tmp_path, "2+1", Namespaces(tmp_path), links=True)
    assert check(site) == []
    assert parse(site_file(site), tmp_path) == site
    names = [name for row in site.links.gateways for name in (row.interface, row.service_interface)]  # type: ignore[union-attr]
    assert len(set(names)) == 4
    assert max(map(len, names)) <= 15


METRICS = """\
# HELP chukan_link_up …
chukan_link_up{body="131016",link="131016-1",centre="east"} 1
chukan_link_up{body="131024",link="131024-1",centre="east"} 0
chukan_links_active{centre="east"} 2
chukan_links_drift_total{centre="east",kind="rogue"} 1
chukan_links_drift_total{centre="east",kind="stolen"} 2
chukan_link_drops_total{centre="east",reason="closed_port"} 7
chukan_links_draining{centre="east"} 0
chukan_links_active_more{centre="east"} broken
"""


def test_a_gateways_metrics_are_read_into_the_picture() -> None:
    found = read("gateway-east", "east", METRICS)
    assert found == GatewayPicture("gateway-east", "east", answers=True, links=2, up=1, drift=3, drops=7)
    assert not found.whole
    assert list(complaints([found])) == []


def test_a_silent_or_draining_gateway_is_complained_of() -> None:
    silent = GatewayPicture("gateway-east", "east", answers=False)
    draining = GatewayPicture("gateway-west", "west", answers=True, draining=True)
    assert [text.split()[0] for text in complaints([silent, draining])] == ["gateway-east", "gateway-west"]
