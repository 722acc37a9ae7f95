"""Grants and what is in force agree: nothing is laid down that nobody has the keys of, or that no device takes."""

import asyncio
from pathlib import Path

import pytest

from chukan.tests.links.test_link_commands import Operator, Town, link, make_site, pair, sealing, town

__all__ = ["link", "make_site", "pair", "sealing", "town"]

pytestmark = pytest.mark.requirement("TEN-03")


def test_a_rotation_that_one_centre_would_refuse_lays_down_nothing_at_the_other(
    link: Operator, town: Town, tmp_path: Path
) -> None:
    town.active()
    words = ["rotate", town.link, "--by", "anna", "--to"]
    link(*words, str(tmp_path / "west.json"), "--centre", "west", sign=True)
    lines = link("history", town.link)
    # The east comes first: keys that lay there would have gone with the file.
    assert link(*words, str(tmp_path / "both.json"), sign=True, status=2)["code"] == "link_state"
    assert not (tmp_path / "both.json").exists()
    assert link("history", town.link) == lines
    assert link(*words, str(tmp_path / "east.json"), "--centre", "east", sign=True)["centres"] == ["east"]
    assert link(*words, str(tmp_path / "both.json"), "--replace", sign=True)["centres"] == ["east", "west"]


def test_a_grant_that_no_device_would_take_is_never_in_force(link: Operator, town: Town) -> None:
    for option in ("--endpoint", "--next-endpoint"):
        told = link("gateway", "west", "--by", "anna", option, "gateway.example:51820", status=2)
        assert told["pointer"] == f"/{option.strip('-')}"
    town.requested()
    sql = "UPDATE chukan.link_gateways SET endpoint = $1 WHERE centre = 'west'"
    asyncio.run(link.site.fetch("east", sql, "gateway.example:51820"))
    refused = link("approve", town.link, "--by", "berta", "--to", str(town.grant), sign=True, status=2)
    assert refused["code"] == "gateway_incomplete"
    assert (town.shown()["state"], town.grant.exists()) == ("requested", False)
    asyncio.run(link.site.fetch("east", sql, "198.51.100.2:51820"))
    link("approve", town.link, "--by", "berta", "--to", str(town.grant), sign=True)
