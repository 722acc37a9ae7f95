"""A gateway's configuration and its key files: what is refused, and what nobody may read."""

import stat
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.vpn.gateway import key_files
from chukan.vpn.gateway.config import Config, load
from chukan.vpn.gateway.parts import ruleset
from chukan.vpn.wireguard.keys import from_base64, public_key_of

TEXT = """
centre = "east"
links_cell = "east"
state_directory = "state"
sealing_key_file = "keys/sealing.key"
[[tunnels]]
interface = "ckx0"
listen_port = 51820
private_key_file = "keys/tunnel.key"
[service_tunnel]
interface = "ckx1"
listen_port = 51821
private_key_file = "keys/service.key"
[network]
outer = "outer"
inner = "inner"
[services]
addresses = ["10.255.0.1", "10.255.255.1"]
agency_port = 8443
health_port = 8445
next_hop = "192.0.2.10"
[cells.east]
host = "127.0.0.1"
port = 5432
links_password_file = "links"
"""


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "gateway.toml"
    path.write_text(text)
    return path


def loaded(folder: Path, text: str = TEXT) -> Config:
    return load(write(folder, text), {})


def test_paths_are_relative_to_the_file_and_the_environment_overlays(tmp_path: Path) -> None:
    config = load(write(tmp_path), {"CHUKAN__TIMING__EVERY_S": "5", "CHUKAN__MODE": "report"})
    assert config.sealing_key_file == tmp_path / "keys/sealing.key"
    assert config.tunnels[0].private_key_file == tmp_path / "keys/tunnel.key"
    assert (config.timing.every_s, config.mode) == (5.0, "report")
    assert config.interfaces == ["ckx0", "ckx1"]


@pytest.mark.parametrize(
    ("new", "code", "pointer"),
    [
        ('centre = "east"\nmoed = "report"', "setting_unknown", "/moed"),
        ('links_cell = "west"', "setting_invalid", "/links_cell"),
        ("listen_port = 51821", "setting_invalid", "/tunnels"),
        ('interface = "an-interface-too-long"', "setting_invalid", "/tunnels/0/interface"),
        ('addresses = ["10.255.0.1", "10.255.0.1"]', "setting_invalid", "/services/addresses"),
        ('addresses = ["exchange.example"]', "setting_invalid", "/services"),
        ('inner = "inner"\nopen_to = ["192.0.2.9", "192.0.2.0/24"]', "setting_invalid", "/network/open_to/1"),
        ("links_password_file = 1", "setting_invalid", "/cells/east/links_password_file"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_place(tmp_path: Path, new: str, code: str, pointer: str) -> None:
    name = new.partition(" = ")[0]
    lines = TEXT.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{name} = "))
    lines[at] = new
    with pytest.raises(Problem) as caught:
        loaded(tmp_path, "\n".join(lines))
    assert (caught.value.code, caught.value.pointer) == (code, pointer)


def test_a_gateway_without_its_login_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        loaded(tmp_path, TEXT.replace('links_password_file = "links"', ""))
    assert (caught.value.code, caught.value.pointer) == ("setting_missing", "/cells/east/links_password_file")


def test_only_agency_and_health_port_are_reached_and_health_alone_is_drained(tmp_path: Path) -> None:
    rules = ruleset(loaded(tmp_path))
    assert rules.services == {(a, p) for a in ("10.255.0.1", "10.255.255.1") for p in (8443, 8445)}
    assert (rules.health_ports, rules.listen_ports) == ({8445}, {51820, 51821})
    assert (rules.tunnels, rules.ipsec) == ({"ckx0", "ckx1"}, False)


class TestKeys:
    def test_they_are_made_once_and_for_their_owner_alone(self, tmp_path: Path) -> None:
        config = loaded(tmp_path)
        first = key_files.make(config)
        assert len(first.made) == 3
        for name in ("sealing", "tunnel", "service"):
            path = tmp_path / "keys" / f"{name}.key"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == [
            "sealing.key", "service.key", "tunnel.key",
        ]  # fmt: skip
        again = key_files.make(config)
        assert again.made == ()
        assert (again.public_key, again.sealing_key) == (first.public_key, first.sealing_key)
        private = key_files.read(tmp_path / "keys" / "tunnel.key")
        assert from_base64(first.public_key) == public_key_of(private)
        assert first.service_public_key not in {None, first.public_key}

    def test_one_that_others_may_read_is_not_used(self, tmp_path: Path) -> None:
        key_files.make(loaded(tmp_path))
        path = tmp_path / "keys" / "tunnel.key"
        path.chmod(0o640)
        with pytest.raises(Problem) as caught:
            key_files.read(path)
        assert caught.value.code == "gateway_key_unusable"

    def test_nor_one_that_is_none_and_it_is_not_quoted(self, tmp_path: Path) -> None:
        path = tmp_path / "x.key"
        path.touch(mode=0o600)
        path.write_text("half a key")
        with pytest.raises(Problem) as caught:
            key_files.read(path)
        assert "half" not in str(caught.value.as_dict())
