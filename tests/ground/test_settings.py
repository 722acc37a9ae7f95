"""Settings: where each value comes from, and what is refused."""

from pathlib import Path

import pytest

from chukan import settings
from chukan.errors import Problem

FILE = """
[site]
centre = "east"

[cells.east]
host = "/run/chukan/east"
port = 5432
broker_password_file = "secrets/broker"
app_password_file = "/etc/chukan/app"

[exchange]
name = "e1"
tls_certificate_file = "tls/e1.crt"
tls_key_file = "tls/e1.key"
tls_ca_file = "tls/ca.crt"
signing_key_file = "tls/e1.sign"
directory_key_file = "tls/directory.pub"

[network]
url = "https://network.invalid"
ca_file = "tls/ca.crt"
verify_key_file = "tls/network.pub"

[keystores]
east = "keys/east"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "chukan.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def refused(path: Path | None, environ: dict[str, str]) -> dict[str, object]:
    with pytest.raises(Problem) as caught:
        settings.load(path, environ)
    document = caught.value.as_dict()
    return {name: document[name] for name in ("code", "pointer", "expected", "line") if name in document}


def test_the_file_is_read_and_its_paths_are_relative_to_it(path: Path) -> None:
    loaded = settings.load(path, {})
    assert loaded.site == settings.Site(centre="east")
    assert loaded.cells["east"].host == "/run/chukan/east"
    assert loaded.cells["east"].broker_password_file == path.parent / "secrets/broker"
    assert loaded.cells["east"].app_password_file == Path("/etc/chukan/app")
    assert loaded.cells["east"].steward_password_file is None
    assert loaded.keystores == {"east": path.parent / "keys/east"}
    assert (loaded.exchange.request_bytes_max, loaded.exchange.in_flight_max) == (16 * 1024 * 1024, 256)
    assert loaded.network.timeout_s == 10.0


def test_the_environment_overlays_the_file_and_may_add_a_cell(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    environ = {
        "CHUKAN__EXCHANGE__AGENCY_PORT": "9443",
        "CHUKAN__NETWORK__TIMEOUT_S": "2.5",
        "CHUKAN__SITE__SANDBOX": "true",
        "CHUKAN__KEYSTORES__WEST": "keys/west",
        "CHUKAN__CELLS__EAST__PORT": "1",
        "CHUKAN__CELLS__WEST__HOST": "west",
        "CHUKAN__CELLS__WEST__PORT": "2",
        "CHUKAN__CELLS__WEST__BROKER_PASSWORD_FILE": "/b",
        "CHUKAN__CELLS__WEST__APP_PASSWORD_FILE": "/a",
        "OTHER": "ignored",
    }
    loaded = settings.load(path, environ)
    assert loaded.exchange.agency_port == 9443
    assert loaded.network.timeout_s == 2.5
    assert loaded.site.sandbox
    assert loaded.keystores["west"] == path.parent / "keys/west"
    assert (loaded.cells["east"].port, loaded.cells["west"].port) == (1, 2)
    assert loaded.cells["east"].host == "/run/chukan/east"


def test_a_misspelt_key_is_refused_with_the_nearest_known_one(path: Path) -> None:
    expected = {"code": "setting_unknown", "pointer": "/exchange/agency_prot", "expected": "agency_port"}
    assert refused(path, {"CHUKAN__EXCHANGE__AGENCY_PROT": "1"}) == expected
    path.write_text(FILE.replace("[network]", "[netwrok]"), encoding="utf-8")
    assert refused(path, {}) == {"code": "setting_unknown", "pointer": "/netwrok", "expected": "network"}


def test_a_key_like_no_other_is_refused_without_a_guess(path: Path) -> None:
    assert refused(path, {"CHUKAN__ZZZZ": "1"}) == {"code": "setting_unknown", "pointer": "/zzzz"}


def test_what_is_missing_is_named_with_its_table(path: Path) -> None:
    assert refused(None, {}) == {"code": "setting_missing", "pointer": "/site"}
    environ = {"CHUKAN__CELLS__WEST__HOST": "west"}
    assert refused(path, environ) == {"code": "setting_missing", "pointer": "/cells/west/port"}


@pytest.mark.parametrize(
    ("name", "value", "pointer"),
    [
        ("EXCHANGE__AGENCY_PORT", "70000", "/exchange/agency_port"),
        ("EXCHANGE__AGENCY_PORT", "https", "/exchange/agency_port"),
        ("EXCHANGE__IN_FLIGHT_MAX", "0", "/exchange/in_flight_max"),
        ("NETWORK__TIMEOUT_S", "-1", "/network/timeout_s"),
        ("SITE__SANDBOX", "perhaps", "/site/sandbox"),
        ("CELLS", "east", "/cells"),
        ("CELLS__EAST", "east", "/cells/east"),
        ("SITE", "east", "/site"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key_and_never_quoted(path: Path, name: str, value: str, pointer: str) -> None:
    document = refused(path, {f"CHUKAN__{name}": value})
    assert (document["code"], document["pointer"]) == ("setting_invalid", pointer)
    assert value not in str(document["expected"]).split()


def test_a_wrong_type_in_the_file_is_not_guessed_right(path: Path) -> None:
    path.write_text(FILE.replace("port = 5432", 'port = "5432"'), encoding="utf-8")
    assert refused(path, {}) == {"code": "setting_invalid", "pointer": "/cells/east/port", "expected": "`int`"}


@pytest.mark.requirement("CON-01")
def test_the_check_of_addresses_may_be_off_in_a_sandbox_only(path: Path) -> None:
    off = {"CHUKAN__SITE__ADDRESS_CHECK": "false"}
    assert refused(path, off) == {"code": "setting_forbidden", "pointer": "/site/address_check"}
    loaded = settings.load(path, {**off, "CHUKAN__SITE__SANDBOX": "1"})
    assert not loaded.site.address_check


def test_an_unreadable_file_says_where(path: Path) -> None:
    path.write_text("[site]\ncentre = east\n", encoding="utf-8")
    assert refused(path, {}) == {"code": "settings_unreadable", "line": 2, "expected": "TOML"}
    missing = {"code": "settings_unreadable", "expected": "a readable UTF-8 file"}
    assert refused(path.with_name("none.toml"), {}) == missing
    path.write_bytes(b"\xff")
    assert refused(path, {}) == missing


def test_each_value_is_explained_with_its_source(path: Path) -> None:
    entries = {e.key: e for e in settings.explain(path, {"CHUKAN__EXCHANGE__AGENCY_PORT": "1"})}
    assert entries["site.centre"] == ("site.centre", "east", f"{path}:3")
    assert entries["cells.east.port"].source == f"{path}:7"
    assert entries["exchange.agency_port"] == ("exchange.agency_port", "1", "environment")
    assert entries["exchange.network_port"] == ("exchange.network_port", "8444", "default")
    assert entries["keystores.east"] == ("keystores.east", str(path.parent / "keys/east"), f"{path}:25")
    assert entries["data.law_directory"].source == "default"


def test_a_secret_is_explained_by_its_path(path: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/broker").write_text("hunter2")
    explained = str(settings.explain(path, {}))
    assert str(tmp_path / "secrets/broker") in explained
    assert "hunter2" not in explained


def test_what_is_missing_is_explained_too() -> None:
    sources = {entry.key: entry.source for entry in settings.explain(None, {})}
    assert sources["site.centre"] == sources["cells"] == sources["network.url"] == "missing"
    assert sources["site.sandbox"] == "default"


def test_every_setting_is_explained(path: Path) -> None:
    loaded = settings.load(path, {})
    keys = {entry.key for entry in settings.explain(path, {})}
    for section in (loaded.site, loaded.exchange, loaded.network, loaded.data):
        name = type(section).__name__.lower()
        assert {f"{name}.{field}" for field in section.__struct_fields__} <= keys
    assert {f"cells.east.{field}" for field in loaded.cells["east"].__struct_fields__} <= keys


MEMBERS = """
broker_password_file = "secrets/broker"
app_password_file = "secrets/app"
tls_ca_file = "ca.pem"
tls_certificate_file = "certificate.pem"
tls_key_file = "key.pem"
[[cells.east.members]]
name = "e1"
host = "198.18.1.11"
port = 10432
rest = "https://198.18.1.11:10808"
centre = "east"
[[cells.east.members]]
name = "ew1"
host = "198.18.2.21"
port = 10432
rest = "https://198.18.2.21:10808"
centre = "west"
"""


@pytest.fixture
def members(path: Path) -> Path:
    """A cell that is a cluster of two members."""
    text = FILE.replace(
        """host = "/run/chukan/east"
port = 5432
broker_password_file = "secrets/broker"
app_password_file = "/etc/chukan/app"
""",
        MEMBERS,
    )
    path.write_text(text, encoding="utf-8")
    return path


def test_a_cell_may_be_the_members_of_a_cluster(members: Path) -> None:
    cell = settings.load(members, {}).cells["east"]
    assert [(each.name, each.host, each.port, each.centre) for each in cell.members] == [
        ("e1", "198.18.1.11", 10432, "east"),
        ("ew1", "198.18.2.21", 10432, "west"),
    ]
    assert (cell.host, cell.restore_epoch) == ("", 1)
    assert cell.tls_ca_file == members.parent / "ca.pem"
    entries = {entry.key: entry for entry in settings.explain(members, {})}
    assert entries["cells.east.members.1.rest"].value == "https://198.18.2.21:10808"
    lines = members.read_text(encoding="utf-8").splitlines()
    line = int(entries["cells.east.members.1.name"].source.rpartition(":")[2])
    assert lines[line - 1] == 'name = "ew1"'


@pytest.mark.parametrize(
    ("old", "new", "code", "pointer"),
    [
        ('name = "ew1"', 'name = "e1"', "setting_invalid", "/cells/east/members/1/name"),
        ('name = "ew1"', 'name = "E 1"', "setting_invalid", "/cells/east/members/1/name"),
        ('rest = "https://198.18.2.21:10808"', 'rest = "http://x:1"', "setting_invalid", "/cells/east/members/1/rest"),
        ('host = "198.18.2.21"', 'host = "/run/east"', "setting_invalid", "/cells/east/members/1/host"),
        ('host = "198.18.2.21"\n', "", "setting_missing", "/cells/east/members/1/host"),
        ('host = "198.18.2.21"', 'hosts = "198.18.2.21"', "setting_unknown", "/cells/east/members/1/hosts"),
        ('tls_ca_file = "ca.pem"\n', "", "setting_missing", "/cells/east/tls_ca_file"),
        ('tls_key_file = "key.pem"\n', "", "setting_missing", "/cells/east/tls_key_file"),
        ('tls_ca_file = "ca.pem"\n', 'tls_ca_file = "ca.pem"\nhost = "x"\n', "setting_forbidden", "/cells/east/host"),
    ],
)
def test_members_that_cannot_be_meant_are_refused(members: Path, old: str, new: str, code: str, pointer: str) -> None:
    text = members.read_text(encoding="utf-8")
    assert text.count(old) == 1 or old.startswith(("tls", "host"))
    members.write_text(text.replace(old, new, 1), encoding="utf-8")
    found = refused(members, {})
    assert (found["code"], found["pointer"]) == (code, pointer)


def test_members_come_from_the_file_alone(members: Path) -> None:
    assert refused(members, {"CHUKAN__CELLS__EAST__MEMBERS": "e1"})["pointer"] == "/cells/east/members"
