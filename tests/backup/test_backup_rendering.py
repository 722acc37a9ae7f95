"""Backups are rendered where the site wants them, each key stays on its host, and nothing changes without them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from chukan.replication import archiving, backup, render
from chukan.replication.site import Site
from chukan.replication.site_file import parse
from chukan.replication.site_rules import check
from chukan.tests.site.conftest import SITE

TABLE = '\n[backup]\nhosts = { east = "east-1", west = "west-1" }\n'
SECRETS = render.Secrets("su-password", "repl-password", "rewind-password", "rest-password")


@pytest.fixture
def site_of(tmp_path: Path) -> Callable[[str], Site]:
    return lambda text: parse(text, tmp_path)


def test_without_the_table_nothing_of_it_is_rendered(site_of: Callable[[str], Site]) -> None:
    for name in ("e1", "ew1"):
        document = yaml.safe_load(render.patroni(site_of(SITE), name, SECRETS))["postgresql"]
        assert "archive_mode" not in document["parameters"]
        assert "callbacks" not in document
        assert "pg_ident" not in document
        assert document["parameters"]["unix_socket_directories"] == ""
        assert not any(line.startswith("local") for line in document["pg_hba"])


def test_every_node_archives_and_lets_nobody_else_in_by_its_socket(site_of: Callable[[str], Site]) -> None:
    site = site_of(SITE + TABLE)
    assert check(site) == []
    for cell, node in site.nodes():
        document = yaml.safe_load(render.patroni(site, node.name, SECRETS))["postgresql"]
        parameters = document["parameters"]
        assert parameters["archive_mode"] == "on"
        script = archiving.script(site, node.name)
        assert parameters["archive_command"] == f"/bin/sh {archiving.script_file(site, node)} %p %f"
        assert document["callbacks"] == {"on_role_change": f"/bin/sh {archiving.script_file(site, node)}"}
        assert f"--stanza={cell} " in script
        assert parameters["unix_socket_permissions"] == "0700"
        assert [line for line in document["pg_hba"] if line.startswith("local")] == [
            "local postgres postgres peer map=backup"
        ]
        assert document["pg_ident"] == ["backup chukan postgres"]


def test_a_key_is_on_its_own_host_only(site_of: Callable[[str], Site]) -> None:
    site = site_of(SITE + TABLE)
    own, other = backup.node(site, "e1", "EAST-KEY"), backup.node(site, "e2", None)
    assert own.count("EAST-KEY") == 1
    assert "repo1-cipher-type=aes-256-cbc" in own
    assert "repo2-host=192.0.2.21" in own
    assert "cipher" not in other
    assert "repo1-host=192.0.2.11" in other
    with pytest.raises(ValueError, match="needs its key"):
        backup.node(site, "e1", None)


def test_a_push_names_one_repository_alone(site_of: Callable[[str], Site]) -> None:
    site = site_of(SITE + TABLE)
    _, e1 = site.node("e1")
    files = backup.node_files(site, e1, "EAST-KEY")
    near, far = files[archiving.near_file(site, e1)], files[archiving.far_file(site, e1)]
    assert near.count("EAST-KEY") == 1
    assert "repo2" not in near
    assert "repo2-host=192.0.2.21" in far
    assert "repo1" not in far
    assert "EAST-KEY" not in far
    assert "EAST-KEY" not in files[archiving.script_file(site, e1)]


def test_a_cell_is_at_home_in_the_first_repository(site_of: Callable[[str], Site]) -> None:
    site = site_of(SITE + TABLE)
    assert backup.repositories(site, "west") == {1: "west", 2: "east"}
    text = backup.repository(site, "west", "east", "EAST-KEY")
    assert "repo2-path=" in text
    assert "repo1" not in text
    assert "pg3-host" not in text  # we1 stands on the repository's own host
    assert "pg1-host=192.0.2.21" in text


def test_a_server_answers_for_what_two_hosts_have_in_common(site_of: Callable[[str], Site]) -> None:
    text = backup.server(site_of(SITE + TABLE), "east-2")
    allowed = [line for line in text.splitlines() if line.startswith("tls-server-auth=")]
    # It keeps no repository, so no other node's host may ask it anything.
    assert allowed == ["tls-server-auth=192.0.2.11=east,west", "tls-server-auth=192.0.2.21=east,west"]


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ('east = "east-1"', 'east = "west-2"', "site_backup"),
        ('east = "east-1", ', "", "site_backup"),
        ('"east-1"', '"nowhere"', "site_name_unknown"),
        ("hosts =", "port = 10432\nhosts =", "site_address_twice"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    site_of: Callable[[str], Site], before: str, after: str, code: str
) -> None:
    assert before in TABLE
    assert code in {problem.code for problem in check(site_of(SITE + TABLE.replace(before, after, 1)))}


def test_a_restored_cell_bears_its_epoch(site_of: Callable[[str], Site]) -> None:
    site = site_of(SITE.replace('[cells.east]\nhome = "east"', '[cells.east]\nhome = "east"\nrestore_epoch = 2'))
    assert render.exchange(site, "exchange-west").count("restore_epoch = 2") == 1
    assert "restore_epoch" not in render.exchange(site_of(SITE), "exchange-west")
