"""``[officers]`` of a site: what exchanges are told of signing in, and what is refused before that."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from chukan.replication import render
from chukan.replication.site import Site
from chukan.replication.site_file import parse
from chukan.replication.site_rules import check
from chukan.settings import Officers, load

Changed = Callable[..., Site]


def with_officers(text: str, table: str, folder: Path) -> Site:
    return parse(f"{text}\n[officers]\n{table}\n", folder)


@pytest.mark.requirement("AUT-04")
def test_both_exchanges_lock_and_end_by_the_sites_times(text: str, tmp_path: Path) -> None:
    table = 'idle_s = 600\nfailures_free = 2\nlock_max_s = 7200\npasskey_domain = "c.example"'
    site = with_officers(text, f'{table}\npasskey_origins = ["https://c.example"]', tmp_path)
    assert check(site) == []
    path = tmp_path / "chukan.toml"
    for exchange in ("exchange-east", "exchange-west"):
        path.write_text(render.exchange(site, exchange))
        officers = load(path, {}).officers
        assert officers == Officers(
            passkey_domain="c.example",
            passkey_origins=["https://c.example"],
            idle_s=600,
            failures_free=2,
            lock_max_s=7200,
        )
    assert "officers" not in tomllib.loads(render.operator(site))


def test_a_site_that_says_nothing_renders_nothing(changed: Changed) -> None:
    assert "officers" not in tomllib.loads(render.exchange(changed(), "exchange-east"))


@pytest.mark.parametrize(
    ("table", "code", "field"),
    [
        ("session_s = 300\nidle_s = 900", "setting_invalid", "session_s"),
        ("lock_first_s = 600\nlock_max_s = 300", "setting_invalid", "lock_max_s"),
        ('passkey_domain = "c.example"', "setting_missing", "passkey_origins"),
    ],
)
def test_what_no_exchange_would_start_with_is_said_at_the_site(
    text: str, tmp_path: Path, table: str, code: str, field: str
) -> None:
    found = check(with_officers(text, table, tmp_path))
    assert [(each.code, each.pointer) for each in found] == [(code, f"/officers/{field}")]
