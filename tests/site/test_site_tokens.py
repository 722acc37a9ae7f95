"""The tokens (HSM) of a site: each centre's own, named in one place and rendered for everybody who opens keys."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.replication import render
from chukan.replication.site import Site
from chukan.replication.site_file import parse
from chukan.replication.site_rules import check
from chukan.settings import load

Changed = Callable[..., Site]


def without_tokens(text: str) -> str:
    head, _, rest = text.partition("[key_tokens.east]")
    return head + rest[rest.index("[evidence]") :]


@pytest.mark.requirement("SEC-01")
def test_exchanges_and_the_operator_are_told_of_both_tokens(changed: Changed, tmp_path: Path) -> None:
    site = changed()
    for text in (render.exchange(site, site.exchanges[0].name), render.operator(site)):
        tokens = tomllib.loads(text)["key_tokens"]
        assert {centre: row["token"] for centre, row in tokens.items()} == {"east": "towns-east", "west": "towns-west"}
        assert tokens["east"]["pin_file"] == str(tmp_path / "pin-east")
        path = tmp_path / "chukan.toml"
        path.write_text(text)
        assert load(path, {}).key_tokens["west"].token == "towns-west"  # noqa: S105 - a token's label


@pytest.mark.requirement("SEC-01")
@pytest.mark.parametrize(
    ("before", "after", "code", "pointer"),
    [
        ("[key_tokens.west]", "[key_tokens.north]", "setting_missing", "/key_tokens/west"),
        ('token = "towns-west"', 'token = "towns-east"', "setting_invalid", "/key_tokens"),
    ],
)
def test_each_centre_has_one_of_its_own(changed: Changed, before: str, after: str, code: str, pointer: str) -> None:
    found = {(each.code, each.pointer) for each in check(changed((before, after)))}
    assert (code, pointer) in found


@pytest.mark.requirement("SEC-01")
def test_only_a_sandbox_keeps_master_keys_in_files(text: str, tmp_path: Path) -> None:
    bare = without_tokens(text)
    assert [(each.code, each.pointer) for each in check(parse(bare, tmp_path))] == [("setting_missing", "/key_tokens")]
    sandbox = parse(f"sandbox = true\n{bare}", tmp_path)
    assert check(sandbox) == []
    assert "key_tokens" not in tomllib.loads(render.operator(sandbox))


def test_a_token_with_a_word_too_many_is_refused_by_its_name(text: str, tmp_path: Path) -> None:
    spoilt = text.replace('token = "towns-west"', 'token = "towns-west"\npin = "1"')
    with pytest.raises(Problem) as refused:
        parse(spoilt, tmp_path)
    assert refused.value.pointer == "/key_tokens/west/pin"
