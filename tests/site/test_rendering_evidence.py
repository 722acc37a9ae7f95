"""Evidence keys of a site: each centre's own private half, everybody's public ones, a memory apart from the logs."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from chukan.replication import render
from chukan.replication.site import Site
from chukan.replication.site_rules import check

pytestmark = pytest.mark.requirement("REC-02")
Changed = Callable[..., Site]


def test_each_centre_signs_with_its_own_key_and_knows_both(changed: Changed) -> None:
    site = changed()
    for centre in ("east", "west"):
        said = tomllib.loads(render.exchange(site, f"exchange-{centre}"))["evidence"]
        folder = site.directory(centre) / "signing"
        assert said["name"] == "log.towns.example"
        assert Path(said["signing_key_file"]) == folder / f"evidence-{centre}.pem"
        files = {each: Path(file) for each, file in said["public_key_files"].items()}
        assert files == {each: folder / f"evidence-{each}.public.pem" for each in ("east", "west")}
        assert site.cells[said["memory_cell"]].home == centre


def test_the_operator_has_public_halves_only(changed: Changed) -> None:
    site = changed()
    said = tomllib.loads(render.operator(site))["evidence"]
    assert set(said) == {"name", "public_key_files"}
    assert all(Path(file).is_relative_to(site.operator.directory) for file in said["public_key_files"].values())


def test_a_real_site_must_sign_and_a_sandbox_need_not(changed: Changed) -> None:
    table = '[evidence]\nname = "log.towns.example"\n'
    without = changed((table, ""))
    assert [(each.code, each.pointer) for each in check(without)] == [("setting_missing", "/evidence/name")]
    sandbox = changed((table, ""), ('name = "towns"', 'name = "towns"\nsandbox = true'))
    assert "setting_missing" not in {each.code for each in check(sandbox)}
    assert "evidence" not in tomllib.loads(render.exchange(sandbox, "exchange-east"))
