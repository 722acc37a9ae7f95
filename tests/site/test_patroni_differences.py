"""What Patroni has is compared with what the site file wants, setting by setting."""

from pathlib import Path

from chukan.replication import render
from chukan.replication.dynamic import differences
from chukan.replication.site_file import parse
from chukan.tests.site.conftest import SITE

WANTED = {"ttl": 20, "synchronous_mode": "on", "postgresql": {"use_slots": True, "parameters": {"jit": "off"}}}


def test_the_same_settings_differ_nowhere() -> None:
    wanted = render.dynamic(parse(SITE, Path("/elsewhere")))
    assert list(differences(wanted, wanted)) == []


def test_another_value_a_missing_one_and_a_missing_table_are_each_named() -> None:
    found = list(differences(WANTED, {"ttl": 30, "synchronous_mode": True}))
    assert found == [
        ("ttl", 20, 30),
        ("postgresql.use_slots", True, None),
        ("postgresql.parameters.jit", "off", None),
    ]


def test_what_only_patroni_has_is_an_operators_own() -> None:
    assert list(differences(WANTED, {**WANTED, "pause": True, "maximum_lag_on_syncnode": 5})) == []


def test_a_switch_is_the_same_however_it_is_written() -> None:
    assert list(differences({"a": "on", "b": False, "c": "128MB"}, {"a": True, "b": "off", "c": "128MB"})) == []
    assert list(differences({"a": "on"}, {"a": False})) == [("a", "on", False)]
