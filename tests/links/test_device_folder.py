"""A device's folder and the acts on it: keys stay private, grants are taken in whole, keys change without a gap."""

import base64
import datetime as dt
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.tenants.link_plan import inner_v4, inner_v6
from chukan.vpn import enrolment, invitation
from chukan.vpn.device import enrolling, qr, settings
from chukan.vpn.device.folder import DeviceFolder, create
from chukan.vpn.device.keys import new_wireguard
from chukan.vpn.enrolment import Grant, GrantedCentre
from chukan.vpn.psk_sealing import DEVICE, seal_psk
from chukan.vpn.wireguard.keys import public_key_of, to_base64

NOW = dt.datetime(2026, 11, 23, 9, 0, tzinfo=dt.UTC)
LINK = "131016-1"
PLATFORM = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PEM = PLATFORM.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
CODE = invitation.new_code(SystemChance(SystemClock()))
GATEWAYS = {"east": public_key_of(new_wireguard()), "west": public_key_of(new_wireguard())}


@pytest.fixture
def device(tmp_path: Path) -> DeviceFolder:
    return create(tmp_path / "device", LINK, ("east", "west"), PEM, prefix="t")


def ask(device: DeviceFolder, **options: Any) -> enrolment.Request:
    file = enrolling.request(device, CODE, NOW, **options)
    return enrolment.verify_request(enrolment.read_request(file), invitation.public_of(CODE), NOW)


def granted(request: enrolment.Request, at: dt.datetime = NOW, psk: bytes = b"p" * 32, **changes: Any) -> bytes:
    """Return the grant that the platform would make for a request."""
    centres = {
        centre: GrantedCentre(
            address=f"10.255.0.{number}",
            endpoint=f"198.51.100.{number}:51820",
            gateway_key=GATEWAYS[centre],
            device_key=request.keys[centre],
            psk=seal_psk(request.sealing_key, psk, link=request.link, to=DEVICE),
        )
        for number, centre in enumerate(request.keys, start=1)
    }
    fields: dict[str, Any] = {
        "link": request.link,
        "signing_key": request.signing_key,
        "addresses": [inner_v4(request.link), inner_v6(request.link)],
        "centres": centres,
        "service_port": 8443,
        "health_port": 8445,
        "made_at": at,
        "valid_until": at + dt.timedelta(days=365),
    }
    return enrolment.sign_grant(Grant(**{**fields, **changes}), PLATFORM)


def refused(code: str, act: Any, *arguments: Any, **options: Any) -> None:
    with pytest.raises(Problem) as caught:
        act(*arguments, **options)
    assert caught.value.code == code


def files_of(device: DeviceFolder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(device.path.rglob("*")) if path.is_file()}


# ---------------------------------------------------------------- the folder


def test_everything_in_the_folder_is_the_owners_alone(device: DeviceFolder) -> None:
    ask(device)
    enrolling.accept(device, granted(ask(device)), NOW)
    assert device.path.stat().st_mode & 0o777 == 0o700
    for path in device.path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_nothing_is_overwritten(device: DeviceFolder) -> None:
    before = files_of(device)
    refused("file_exists", create, device.path, LINK, ("east", "west"), PEM)
    assert files_of(device) == before


@pytest.mark.parametrize(
    ("link", "centres", "prefix", "pem"),
    [
        ("131017-1", ("east",), "t", PEM),
        ("131016-0", ("east",), "t", PEM),
        (LINK, (), "t", PEM),
        (LINK, ("east", "east"), "t", PEM),
        (LINK, ("East",), "t", PEM),
        (LINK, ("../east",), "t", PEM),
        (LINK, ("east",), "a-very-long-prefix", PEM),
        (LINK, ("east",), "t/t", PEM),
        (LINK, ("east",), "t", b"no key"),
    ],
)
def test_a_folder_that_cannot_be_is_not_begun(
    tmp_path: Path, link: str, centres: tuple[str, ...], prefix: str, pem: bytes
) -> None:
    refused("setting_invalid", create, tmp_path / "device", link, centres, pem, prefix=prefix)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "signing.pem", "device.json"])
def test_what_others_can_read_is_refused(device: DeviceFolder, name: str) -> None:
    (device.path / name).chmod(0o750 if name == "" else 0o640)
    refused("device_damaged", lambda: ask(DeviceFolder(device.path)))


@pytest.mark.parametrize("name", ["signing.pem", "device.json", "platform.pem"])
def test_a_damaged_file_is_named_and_not_quoted(device: DeviceFolder, name: str) -> None:
    (device.path / name).write_bytes(b"something secret")
    with pytest.raises(Problem) as caught:
        ask(DeviceFolder(device.path))
    assert caught.value.code == "device_damaged"
    assert "secret" not in repr(caught.value.as_dict())


def test_no_folder_is_a_step_left_out(tmp_path: Path) -> None:
    refused("device_not_ready", DeviceFolder, tmp_path)


# ---------------------------------------------------------------- asking


def test_a_request_has_a_key_of_its_own_for_each_centre_and_no_private_one(device: DeviceFolder) -> None:
    asked = ask(device, system=("kokuho", "urn:chukan:client:kokuho"))
    assert len({*asked.keys.values(), asked.sealing_key}) == 3
    assert enrolment.requested_names(asked.certificate_request or "") == ["urn:chukan:client:kokuho"]
    file = device.read("request.json")
    for centre, public in asked.keys.items():
        private = device.private(centre, public)
        assert base64.b64encode(private) not in file
        assert private not in base64.b64decode(base64.b64encode(file))


def test_asking_again_asks_for_the_same_keys(device: DeviceFolder) -> None:
    assert ask(device).keys == ask(device).keys


def test_a_mistyped_code_is_found_before_anything_is_written(device: DeviceFolder) -> None:
    wrong = CODE[:-1] + ("0" if CODE[-1] != "0" else "1")
    refused("invitation_mistyped", enrolling.request, device, wrong, NOW)
    assert not (device.path / "request.json").exists()


# ---------------------------------------------------------------- accepting


@pytest.mark.requirement("TEN-03")
def test_a_grant_becomes_two_configurations_that_wg_quick_takes(device: DeviceFolder) -> None:
    accepted = enrolling.accept(device, granted(ask(device)), NOW)
    assert accepted.fresh == ["east", "west"]
    for name, metric in (("t-east", 100), ("t-west", 200)):
        path = device.path / f"{name}.conf"
        stripped = subprocess.run(["/usr/bin/wg-quick", "strip", path], check=True, capture_output=True, timeout=20)
        assert stripped.stderr == b""
        assert b"AllowedIPs = 10.255.0.0/16" in stripped.stdout
        assert b"PersistentKeepalive = 25" in stripped.stdout
        text = path.read_text()
        assert "\nTable = off\n" in text
        assert "\nMTU = 1380\n" in text
        assert f"\nPostUp = ip route replace 10.255.255.1/32 dev %i src {inner_v4(LINK)} metric {metric}\n" in text
    assert to_base64(device.private("east", ask(device).keys["east"])) in (device.path / "t-east.conf").read_text()


def test_accepting_again_changes_nothing(device: DeviceFolder) -> None:
    file = granted(ask(device))
    enrolling.accept(device, file, NOW)
    before = files_of(device)
    assert enrolling.accept(device, file, NOW).same == ["east", "west"]
    assert files_of(device) == before


def test_the_agents_settings_are_written_once_and_then_belong_to_people(device: DeviceFolder) -> None:
    enrolling.accept(device, granted(ask(device)), NOW)
    assert settings.read(device).home == "east"
    text = device.read(settings.FILE).decode().replace("icmp_misses = 3", "icmp_misses = 7")
    device.keep(settings.FILE, text.encode())
    enrolling.accept(device, granted(ask(device)), NOW)
    assert settings.read(device).icmp_misses == 7


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('home = "north"', "setting_invalid"),
        ("icmp_misses = 0", "setting_invalid"),
        ("icmp_missess = 3", "setting_unknown"),
        ("icmp_misses = ", "settings_unreadable"),
    ],
)
def test_settings_that_cannot_be_are_refused(device: DeviceFolder, line: str, code: str) -> None:
    first = "" if line.startswith("home") else 'home = "east"\n'
    device.keep(settings.FILE, (first + line + "\n").encode())
    refused(code, settings.read, device)


def other_device(tmp_path: Path, link: str = LINK) -> DeviceFolder:
    return create(tmp_path / "other", link, ("east", "west"), PEM, prefix="t")


def test_the_grant_of_another_device_is_refused_and_nothing_is_written(device: DeviceFolder, tmp_path: Path) -> None:
    ask(device)
    before = files_of(device)
    for link in (LINK, "131016-2"):
        other = other_device(tmp_path / link, link)
        refused("grant_invalid", enrolling.accept, device, granted(ask(other)), NOW)
    assert files_of(device) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda asked: granted(asked, valid_until=NOW),
        lambda asked: granted(msgspec.structs.replace(asked, keys={"east": asked.keys["east"]})),
        lambda asked: granted(msgspec.structs.replace(asked, sealing_key=GATEWAYS["east"])),
        lambda asked: granted(msgspec.structs.replace(asked, keys=GATEWAYS)),
        lambda asked: granted(msgspec.structs.replace(asked, signing_key=GATEWAYS["east"])),
        lambda asked: granted(
            msgspec.structs.replace(asked, keys={"east": asked.keys["west"], "west": asked.keys["east"]})
        ),
        lambda asked: granted(asked, certificate_chain="-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"),
        lambda asked: granted(asked)[:-20],
    ],
)
def test_a_grant_that_does_not_fit_is_refused_and_nothing_is_written(device: DeviceFolder, spoil: Any) -> None:
    asked = ask(device)
    before = files_of(device)
    refused("grant_invalid", enrolling.accept, device, spoil(asked), NOW)
    assert files_of(device) == before


def test_an_older_grant_never_takes_the_place_of_a_newer_one(device: DeviceFolder) -> None:
    """Whoever keeps an old grant could lead a device back to a gateway key that was given up."""
    asked = ask(device)
    enrolling.accept(device, granted(asked, NOW), NOW)
    older = granted(asked, NOW - dt.timedelta(seconds=1))
    refused("grant_invalid", enrolling.accept, device, older, NOW)


# ---------------------------------------------------------------- changing a key


def rotated(device: DeviceFolder, centre: str, at: dt.datetime = NOW) -> tuple[bytes, bytes]:
    """Let a device ask for a new key; return its public half and the grant that comes back, of that centre alone."""
    file = enrolling.rotate(device, centre, at)
    wish = enrolment.verify_rotation(
        enrolment.read_rotation(file), device.signing().public_key().public_bytes_raw(), at
    )
    request = msgspec.structs.replace(ask(device), keys={centre: wish.key})
    return wish.key, granted(request, at + dt.timedelta(seconds=1), psk=b"q" * 32)


def test_a_new_key_waits_beside_the_one_in_use(device: DeviceFolder) -> None:
    enrolling.accept(device, granted(ask(device)), NOW)
    used = device.tunnel("east")
    new, file = rotated(device, "east")
    assert used is not None
    assert new != used.public_key
    before = device.read("t-east.conf")
    accepted = enrolling.accept(device, file, NOW)
    assert accepted == ([], ["east"], [])
    assert device.tunnel("east") == used
    assert device.read("t-east.conf") == before
    waiting = device.next_tunnel("east")
    assert waiting is not None
    assert (waiting.public_key, waiting.psk) == (new, b"q" * 32)
    assert device.next_tunnel("west") is None


def test_asking_twice_before_the_grant_asks_for_one_key(device: DeviceFolder) -> None:
    enrolling.accept(device, granted(ask(device)), NOW)
    assert rotated(device, "east")[0] == rotated(device, "east")[0]
    assert len(device.publics("east")) == 2


def test_a_promoted_key_takes_the_place_and_the_old_one_is_gone(device: DeviceFolder) -> None:
    enrolling.accept(device, granted(ask(device)), NOW)
    old = next(iter(device.publics("east")))
    new, file = rotated(device, "east")
    enrolling.accept(device, file, NOW)
    device.promote("east")
    device.promote("east")
    tunnel = device.tunnel("east")
    assert tunnel is not None
    assert tunnel.public_key == new
    assert device.publics("east") == {new}
    assert device.next_tunnel("east") is None
    refused("device_damaged", device.private, "east", old)
    assert rotated(device, "east")[0] not in {old, new}


def test_without_an_agent_the_new_tunnel_is_put_in_place_at_once(device: DeviceFolder) -> None:
    enrolling.accept(device, granted(ask(device)), NOW)
    new, file = rotated(device, "west")
    enrolling.accept(device, file, NOW, at_once=True)
    assert device.publics("west") == {new}
    assert to_base64(device.private("west", new)) in device.read("t-west.conf").decode()


def test_only_a_granted_centre_of_the_device_gets_a_new_key(device: DeviceFolder) -> None:
    refused("device_not_ready", enrolling.rotate, device, "east", NOW)
    refused("setting_invalid", enrolling.rotate, device, "north", NOW)


def test_a_centre_is_not_taken_for_one_whose_name_begins_with_its_name(tmp_path: Path) -> None:
    device = create(tmp_path / "device", LINK, ("east", "east-2"), PEM, prefix="t")
    assert len(device.publics("east")) == len(device.publics("east-2")) == 1
    assert device.publics("east").isdisjoint(device.publics("east-2"))


# ---------------------------------------------------------------- pictures


def test_the_qr_code_holds_the_whole_configuration_with_room_to_spare(device: DeviceFolder) -> None:
    enrolling.accept(device, granted(ask(device)), NOW)
    text = device.read("t-east.conf").decode()
    assert qr._code(text).error in {"M", "Q", "H"}
    assert "\u2588" in qr.on_terminal(text) or "\u2580" in qr.on_terminal(text)
    assert b"<svg" in qr.as_file(text, "svg")[:400]
    assert qr.as_file(text, "png").startswith(b"\x89PNG")
