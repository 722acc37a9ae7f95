"""``chukan device`` as people type it: the steps in their order, what is asked before a key is shown, and the lamps."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops import cli, device_view
from chukan.tenants.link_plan import inner_v4, inner_v6
from chukan.vpn import enrolment, invitation
from chukan.vpn.device.folder import DeviceFolder
from chukan.vpn.device.keys import new_wireguard
from chukan.vpn.device.status import FILE, CentreStatus, Status, write, write_metrics
from chukan.vpn.enrolment import Grant, GrantedCentre
from chukan.vpn.psk_sealing import DEVICE, seal_psk
from chukan.vpn.wireguard.keys import public_key_of, to_base64

LINK = "131016-1"
PLATFORM = Ed25519PrivateKey.generate()
CODE = invitation.new_code(SystemChance(SystemClock()))
NOW = SystemClock().now()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where somebody sits, with the platform's key that came with the invitation."""
    pem = PLATFORM.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "platform.pem").write_bytes(pem)
    return tmp_path


def chukan(place: Path, *words: str) -> int:
    return cli.run(["device", *words, "--folder", str(place / "device")])


def init(place: Path) -> int:
    return chukan(place, "init", "--link", LINK, "--platform-key", str(place / "platform.pem"), "--prefix", "t")


def grant(place: Path) -> Path:
    """Grant what was asked for; return the file."""
    signed = enrolment.read_request((place / "device" / "request.json").read_bytes())
    request = enrolment.verify_request(signed, invitation.public_of(CODE), SystemClock().now())
    now = SystemClock().now()
    centres = {
        centre: GrantedCentre(
            address=f"10.255.0.{number}",
            endpoint=f"198.51.100.{number}:51820",
            gateway_key=public_key_of(new_wireguard()),
            device_key=public,
            psk=seal_psk(request.sealing_key, b"p" * 32, link=LINK, to=DEVICE),
        )
        for number, (centre, public) in enumerate(request.keys.items(), start=1)
    }
    made = Grant(
        link=LINK,
        signing_key=request.signing_key,
        addresses=[inner_v4(LINK), inner_v6(LINK)],
        centres=centres,
        service_port=8443,
        health_port=8445,
        made_at=now,
        valid_until=now + dt.timedelta(days=365),
    )
    path = place / "grant.json"
    path.write_bytes(enrolment.sign_grant(made, PLATFORM))
    return path


def granted(place: Path) -> DeviceFolder:
    assert init(place) == 0
    assert chukan(place, "request", "--code", CODE) == 0
    assert chukan(place, "accept", str(grant(place))) == 0
    return DeviceFolder(place / "device")


def private_keys(device: DeviceFolder) -> list[str]:
    return [path.read_text().strip() for path in (device.path / "keys").iterdir()]


@pytest.mark.requirement("TEN-03")
def test_the_steps_lead_from_nothing_to_two_configurations(place: Path, capsys: Any) -> None:
    device = granted(place)
    told = capsys.readouterr()
    assert (device.path / "t-east.conf").exists()
    assert (device.path / "t-west.conf").exists()
    for secret in [*private_keys(device), CODE, to_base64(b"p" * 32)]:
        assert secret not in told.out + told.err


def test_the_request_names_the_system_for_its_certificate(place: Path, capsys: Any) -> None:
    assert init(place) == 0
    capsys.readouterr()
    out = place / "request.json"
    assert chukan(place, "request", "--code", CODE, "--client", "kokuho", "--out", str(out), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    asked = enrolment.read_request(out.read_bytes()).content
    assert enrolment.requested_names(asked.certificate_request or "") == ["urn:chukan:client:kokuho"]
    assert told["digits"].replace(" ", "") == enrolment.digest(out.read_bytes()).hex()[:16]


def test_the_code_can_be_typed_where_no_history_keeps_it(place: Path, monkeypatch: Any, capsys: Any) -> None:
    assert init(place) == 0
    monkeypatch.setattr("getpass.getpass", lambda _: CODE.lower())
    assert chukan(place, "request") == 0
    (place / "code").write_text(CODE + "\n")
    assert chukan(place, "request", "--code-file", str(place / "code")) == 0
    signed = enrolment.read_request((place / "device" / "request.json").read_bytes())
    enrolment.verify_request(signed, invitation.public_of(CODE), SystemClock().now())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("request", "--code", CODE), "device_not_ready"),
        (("show",), "device_not_ready"),
        (("agent",), "device_not_ready"),
    ],
)
def test_a_step_that_comes_too_early_names_the_one_before(
    place: Path, words: tuple[str, ...], code: str, capsys: Any
) -> None:
    assert chukan(place, *words) == 2
    assert code in capsys.readouterr().err


def test_before_the_grant_there_is_nothing_to_run_draw_or_renew(place: Path, capsys: Any) -> None:
    assert init(place) == 0
    for words in (("agent",), ("qr", "east", "--i-am-on-site"), ("rotate", "--centre", "east")):
        assert chukan(place, *words) == 2
        assert "device_not_ready" in capsys.readouterr().err


def test_a_key_is_drawn_only_for_somebody_in_front_of_the_device(place: Path, capsys: Any) -> None:
    device = granted(place)
    capsys.readouterr()
    assert chukan(place, "qr", "east") == 2
    told = capsys.readouterr()
    assert "on_site_required" in told.err
    assert told.out == ""
    picture = place / "east.svg"
    assert chukan(place, "qr", "east", "--svg", str(picture)) == 2
    assert not picture.exists()
    assert chukan(place, "qr", "east", "--i-am-on-site", "--svg", str(picture)) == 0
    assert picture.stat().st_mode & 0o777 == 0o600
    assert chukan(place, "qr", "east", "--i-am-on-site") == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) > 20
    assert "private key" in told.err
    assert all(secret not in told.out + told.err for secret in private_keys(device))


def test_nothing_is_written_over(place: Path, capsys: Any) -> None:
    assert init(place) == 0
    assert init(place) == 2
    assert "file_exists" in capsys.readouterr().err


# ---------------------------------------------------------------- the lamps


def centre_status(**changes: Any) -> CentreStatus:
    fields: dict[str, Any] = {
        "interface": "t-east",
        "up": True,
        "condition": "good",
        "handshake_at": NOW.timestamp() - 60,
        "rx": 1,
        "tx": 2,
        "renewing": False,
    }
    return CentreStatus(**{**fields, **changes})


def status(device: DeviceFolder, **changes: Any) -> Status:
    fields: dict[str, Any] = {
        "at": NOW,
        "link": LINK,
        "pid": 1,
        "active": "east",
        "moves": 3,
    }
    shaken_at = (changes.get("at") or NOW).timestamp() - 60
    fields["centres"] = {
        centre: centre_status(interface=name, handshake_at=shaken_at)
        for centre, name in device.identity.interfaces.items()
    }
    made = Status(**{**fields, **changes})
    write(device.path / FILE, made)
    return made


@pytest.mark.parametrize(
    ("east", "lamp"),
    [
        ({}, "good"),
        ({"condition": "down"}, "down"),
        ({"condition": "drain"}, "drain"),
        ({"condition": "uncertain"}, "uncertain"),
        ({"up": False}, "uncertain"),
        ({"handshake_at": None}, "uncertain"),
        ({"handshake_at": NOW.timestamp() - 181}, "uncertain"),
    ],
)
def test_each_lamp_means_one_thing(place: Path, east: dict[str, Any], lamp: str) -> None:
    device = granted(place)
    status(device, centres={"east": centre_status(**east), "west": centre_status()})
    seen = device_view.look(device, NOW)
    assert (seen.centres["east"].lamp, seen.centres["west"].lamp) == (lamp, "good")
    assert seen.green == (lamp == "good")


@pytest.mark.parametrize(
    "changes", [{"at": NOW - dt.timedelta(seconds=16)}, {"ended": True}, {"at": NOW + dt.timedelta(hours=1)}]
)
def test_what_nobody_looks_at_has_no_lamp(place: Path, changes: dict[str, Any]) -> None:
    device = granted(place)
    status(device, **changes)
    seen = device_view.look(device, NOW)
    assert {each.lamp for each in seen.centres.values()} == {"unknown"}
    assert not seen.green


def test_a_route_that_leads_nowhere_is_not_green(place: Path) -> None:
    device = granted(place)
    status(device, active=None)
    assert not device_view.look(device, NOW).green


def test_what_is_shown_is_told_by_the_exit_status_too(place: Path, capsys: Any) -> None:
    device = granted(place)
    status(device, at=SystemClock().now())
    capsys.readouterr()
    assert chukan(place, "show") == 0
    text = capsys.readouterr().out
    assert "良好 good" in text
    assert "使用中 in use" in text
    assert chukan(place, "show", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["green"] is True
    assert document["centres"]["east"]["lamp"] == "good"
    status(device, problem="link_network_refused", active=None, at=SystemClock().now())
    assert chukan(place, "show") == 1
    text = capsys.readouterr().out
    assert "link_network_refused" in text


def test_a_damaged_status_is_told_and_not_guessed(place: Path, capsys: Any) -> None:
    device = granted(place)
    device.keep(FILE, b"{}")
    assert chukan(place, "show") == 2
    assert "device_damaged" in capsys.readouterr().err


def test_metrics_leave_out_what_never_was(place: Path) -> None:
    device = granted(place)
    made = status(device, centres={"east": centre_status(), "west": centre_status(handshake_at=None)})
    write_metrics(place / "device.prom", made)
    text = (place / "device.prom").read_text()
    assert 'chukan_device_route_active{centre="east"} 1.0' in text
    assert 'chukan_device_route_active{centre="west"} 0.0' in text
    assert 'chukan_device_last_handshake_timestamp_seconds{centre="east"}' in text
    assert 'chukan_device_last_handshake_timestamp_seconds{centre="west"}' not in text
    assert msgspec.json.decode(device.read(FILE), type=Status) == made
