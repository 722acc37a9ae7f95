"""Revocation lists of a site: who is told of which files, and that a real site cannot go without."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from chukan.replication import render
from chukan.replication.site import Site
from chukan.replication.site_file import parse
from chukan.replication.site_rules import check
from chukan.settings import load

Changed = Callable[..., Site]
TABLE = '[revocation]\noutside = ["agencies", "network"]\n'
SECRETS = render.Secrets("s", "r", "w", "p")


def test_everybody_who_can_honour_lists_is_told_of_its_own_places_files(changed: Changed, tmp_path: Path) -> None:
    site = changed()
    node = yaml.safe_load(render.patroni(site, "ew1", SECRETS))["postgresql"]
    joined = str(tmp_path / "west" / "pki" / "lists" / "joined.pem")
    assert node["parameters"]["ssl_crl_file"] == joined
    assert {user["sslcrl"] for user in node["authentication"].values()} == {joined}
    voter = render.etcd(site, "etcd-witness")
    serials = tmp_path / "witness" / "pki" / "lists" / "joined.crl"
    assert {f"--client-crl-file={serials}", f"--peer-crl-file={serials}"} <= set(voter)
    path = tmp_path / "chukan.toml"
    path.write_text(render.exchange(site, "exchange-east"))
    files = load(path, {}).exchange.crl_files
    own = {"east", "east-root", "west", "west-root", "witness", "witness-root"}
    assert set(files) == own | {"agencies", "network"}
    assert files["west-root"] == tmp_path / "east" / "pki" / "lists" / "west-root.pem"


def test_only_a_sandbox_goes_without(text: str, tmp_path: Path) -> None:
    bare = text.replace(TABLE, "")
    assert [(each.code, each.pointer) for each in check(parse(bare, tmp_path))] == [("setting_missing", "/revocation")]
    sandbox = parse(f"sandbox = true\n{bare}", tmp_path)
    assert check(sandbox) == []
    everything = [render.patroni(sandbox, "e1", SECRETS), *render.etcd(sandbox, "etcd-east")]
    assert not any("crl" in each for each in everything)
    assert "crl_files" not in tomllib.loads(render.exchange(sandbox, "exchange-east"))["exchange"]


@pytest.mark.parametrize(("outside", "place"), [('["east"]', 0), ('["a", "witness-root"]', 1), ('["a", "a"]', 1)])
def test_a_list_from_outside_has_a_name_of_its_own(changed: Changed, outside: str, place: int) -> None:
    site = changed(('outside = ["agencies", "network"]', f"outside = {outside}"))
    assert [(each.code, each.pointer) for each in check(site)] == [("setting_invalid", f"/revocation/outside/{place}")]


def test_nobody_logs_in_at_a_database_without_a_certificate(changed: Changed) -> None:
    site = changed()
    for cell in site.cells.values():
        assert all(line.endswith("scram-sha-256 clientcert=verify-ca") for line in render.pg_hba(site, cell))
