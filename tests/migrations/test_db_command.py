"""``chukan db`` on a real server: create, migrate, status."""

import json

import pytest

from chukan.ops import cli


@pytest.fixture
def installation(any_server, tmp_path):
    """Settings of an installation whose one cell has no database yet, and the administrator's password."""
    for name in ("broker", "app", "steward", "admin"):
        # Roles are shared by the databases of a server: other tests' cells go on with these.
        (tmp_path / name).write_text(f"password-of-chukan_{name}")
    (tmp_path / "admin").write_text(any_server.superuser_password)
    database = f"db{abs(hash(tmp_path)) % 10**9}"
    (tmp_path / "chukan.toml").write_text(f"""
[site]
centre = "east"
sandbox = true
[cells.east]
host = "{any_server.socket_dir}"
port = {any_server.port}
database = "{database}"
broker_password_file = "broker"
app_password_file = "app"
steward_password_file = "steward"
[exchange]
name = "east"
tls_certificate_file = "x"
tls_key_file = "x"
tls_ca_file = "x"
signing_key_file = "x"
directory_key_file = "x"
[network]
url = "https://localhost"
ca_file = "x"
verify_key_file = "x"
[keystores]
east = "keys"
""")
    return tmp_path


@pytest.fixture
def run(installation, capsys):
    def command(*words):
        tokens = ["db", *words, "--config", str(installation / "chukan.toml"), "--json"]
        code = cli.run([*tokens, "--admin-password-file", str(installation / "admin")])
        return code, json.loads(capsys.readouterr().out)

    return command


def test_create_status_migrate(run):
    code, problem = run("status", "east")
    assert (code, problem["code"]) == (2, "no_primary")
    assert run("create", "east")[0] == 0
    assert run("create", "east")[0] == 0
    code, rows = run("status", "east")
    assert code == 0
    assert len(rows) > 10
    assert all(row["applied"] and not row["changed"] for row in rows)
    assert run("migrate", "east", "pre") == (0, {"cell": "east", "phase": "pre", "applied": []})
    assert run("migrate", "east", "post")[1]["applied"] == []


def test_an_unknown_cell_and_an_unreadable_password_are_told(run, installation):
    code, problem = run("status", "north")
    assert (code, problem["code"], problem["pointer"]) == (2, "setting_missing", "/cells/north")
    (installation / "admin").unlink()
    code, problem = run("status", "east")
    assert (code, problem["code"]) == (2, "settings_unreadable")
