"""Invitations, requests, grants and rotations: what is whole is taken, and nothing that anybody altered."""

import datetime as dt
import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from chukan.chance import SeededChance
from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.tenants.directory import key_id
from chukan.tenants.link_plan import inner_v4, inner_v6
from chukan.vpn import enrolment, invitation
from chukan.vpn.device import keys
from chukan.vpn.enrolment import Grant, GrantedCentre, Request, Rotation

NOW = dt.datetime(2026, 11, 23, 9, 0, tzinfo=dt.UTC)
LINK = "131016-1"
OTHER_LINK = "131016-2"
CODE = invitation.new_code(SeededChance(1, ManualClock(NOW)))
OTHER_CODE = invitation.new_code(SeededChance(2, ManualClock(NOW)))
DEVICE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PLATFORM = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def x25519(seed: int) -> bytes:
    return X25519PrivateKey.from_private_bytes(bytes([seed]) * 32).public_key().public_bytes_raw()


def make_request(**changes: Any) -> Request:
    fields: dict[str, Any] = {
        "link": LINK,
        "keys": {"east": x25519(1), "west": x25519(2)},
        "signing_key": DEVICE.public_key().public_bytes_raw(),
        "sealing_key": x25519(3),
        "platform_key": key_id(PLATFORM.public_key()),
        "certificate_request": keys.certificate_request(
            keys.system(keys.new_system()), "kokuho", "urn:chukan:client:kokuho"
        ),
        "made_at": NOW,
    }
    return Request(**{**fields, **changes})


def request_file(request: Request | None = None, code: str = CODE, device: Ed25519PrivateKey = DEVICE) -> bytes:
    return enrolment.sign_request(request or make_request(), invitation=invitation.key_of(code), device=device)


def verify_request(file: bytes, code: str = CODE, now: dt.datetime = NOW) -> Request:
    return enrolment.verify_request(enrolment.read_request(file), invitation.public_of(code), now)


def make_grant(**changes: Any) -> Grant:
    def part(seed: int, number: int) -> GrantedCentre:
        return GrantedCentre(
            address=f"10.255.0.{number}",
            endpoint=f"198.51.100.{number}:51820",
            gateway_key=x25519(10 + seed),
            device_key=x25519(seed),
            psk=bytes(enrolment.SEALED_BYTES),
        )

    fields: dict[str, Any] = {
        "link": LINK,
        "signing_key": DEVICE.public_key().public_bytes_raw(),
        "addresses": [inner_v4(LINK), inner_v6(LINK)],
        "centres": {"east": part(1, 1), "west": part(2, 2)},
        "service_port": 8443,
        "health_port": 8445,
        "made_at": NOW,
        "valid_until": NOW + dt.timedelta(days=365),
    }
    return Grant(**{**fields, **changes})


def verify_grant(file: bytes, now: dt.datetime | None = NOW) -> Grant:
    return enrolment.verify_grant(file, PLATFORM.public_key(), now)


def refused(code: str, act: Callable[[], object]) -> None:
    with pytest.raises(Problem) as caught:
        act()
    assert caught.value.code == code


# ---------------------------------------------------------------- invitations


@pytest.mark.parametrize(
    "written",
    [
        CODE,
        CODE.lower(),
        CODE.replace("-", ""),
        " " + CODE.replace("-", "  ") + "\n",
        CODE.replace("-", "\u2010"),
        CODE.replace("0", "O").replace("1", "l"),
        "".join(chr(ord(sign) + 0xFEE0) if sign.isalnum() else sign for sign in CODE),
    ],
)
def test_a_code_is_the_same_however_it_is_written(written: str) -> None:
    assert invitation.public_of(written) == invitation.public_of(CODE)


def test_a_code_has_26_characters_in_groups_and_none_that_look_alike() -> None:
    assert [len(group) for group in CODE.split("-")] == [5, 5, 5, 5, 6]
    assert set(CODE) - {"-"} <= set(invitation.ALPHABET)
    assert not set("ILOU") & set(invitation.ALPHABET)


@given(st.binary(min_size=25, max_size=25), st.integers(0, 25), st.sampled_from(invitation.ALPHABET))
def test_one_wrong_character_is_found_wherever_it_is(drawn: bytes, place: int, sign: str) -> None:
    code = invitation.normal(invitation.new_code(_Drawn(drawn)))
    wrong = code[:place] + sign + code[place + 1 :]
    if wrong == code:
        assert invitation.normal(wrong) == code
    else:
        refused("invitation_mistyped", lambda: invitation.normal(wrong))


@given(st.binary(min_size=25, max_size=25), st.integers(0, 25), st.integers(0, 25))
def test_two_characters_that_changed_places_are_found(drawn: bytes, first: int, second: int) -> None:
    code = invitation.normal(invitation.new_code(_Drawn(drawn)))
    signs = list(code)
    signs[first], signs[second] = signs[second], signs[first]
    swapped = "".join(signs)
    if swapped == code:
        assert invitation.normal(swapped) == code
    else:
        refused("invitation_mistyped", lambda: invitation.normal(swapped))


class _Drawn:
    """Chance that gives what it was given."""

    def __init__(self, drawn: bytes) -> None:
        self._drawn = drawn

    def token(self, n: int) -> bytes:
        return self._drawn[:n]

    def uuid7(self) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("text", ["", CODE[:-1], CODE + "0", "U" * 26, "x" * 1000, "暗号" * 13])
def test_what_is_no_code_is_refused_without_being_told_again(text: str) -> None:
    with pytest.raises(Problem) as caught:
        invitation.public_of(text)
    assert caught.value.code == "invitation_mistyped"
    assert text == "" or text not in repr(caught.value.as_dict())


def test_codes_differ_and_so_do_their_keys() -> None:
    assert CODE != OTHER_CODE
    assert invitation.public_of(CODE) != invitation.public_of(OTHER_CODE)


# ---------------------------------------------------------------- requests


@pytest.mark.requirement("TEN-03")
def test_a_whole_request_is_taken_and_holds_no_secret() -> None:
    file = request_file()
    assert verify_request(file) == make_request(certificate_request=verify_request(file).certificate_request)
    assert b"PRIVATE" not in file
    assert CODE.replace("-", "").encode() not in file.replace(b"-", b"")
    assert len(enrolment.digest(file)) == 32
    assert enrolment.digest(file) == enrolment.digest(file.strip())


def test_another_invitation_or_none_opens_no_link() -> None:
    refused("invitation_invalid", lambda: verify_request(request_file(), code=OTHER_CODE))
    refused("invitation_invalid", lambda: verify_request(request_file(code=OTHER_CODE)))


def test_a_request_is_for_the_link_that_it_names() -> None:
    """Whoever moves a request to another link breaks both signatures; that link's own invitation signed neither."""
    moved = request_file().replace(LINK.encode(), OTHER_LINK.encode())
    refused("invitation_invalid", lambda: verify_request(moved))
    refused("invitation_invalid", lambda: verify_request(moved, code=OTHER_CODE))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"made_at": NOW - enrolment.AGE_MAX - dt.timedelta(seconds=1)}, "too old"),
        ({"made_at": NOW + enrolment.SKEW_MAX + dt.timedelta(seconds=1)}, "from the future"),
        ({"keys": {"east": x25519(1), "west": x25519(1)}}, "one key for two centres"),
        ({"keys": {"east": x25519(3)}}, "the sealing key as a tunnel's"),
        ({"keys": {"east": bytes(32)}}, "a key of small order"),
        ({"sealing_key": b"\x01" + bytes(31)}, "a sealing key of small order"),
        ({"link": "131017-1"}, "a wrong check digit"),
        ({"link": "131016-64"}, "no such serial"),
        ({"certificate_request": "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n"}, ""),
    ],
)
def test_a_signed_request_that_cannot_be_is_refused(changes: dict[str, Any], why: str) -> None:
    refused("request_invalid", lambda: verify_request(request_file(make_request(**changes))))


def test_a_request_that_the_device_did_not_sign_is_refused() -> None:
    stranger = Ed25519PrivateKey.generate()
    refused("request_invalid", lambda: verify_request(request_file(device=stranger)))


def test_a_certificate_request_must_prove_its_own_key() -> None:
    pem = make_request().certificate_request or ""
    assert enrolment.requested_names(pem) == ["urn:chukan:client:kokuho"]
    lines = pem.splitlines()
    middle = lines[-2]
    lines[-2] = middle[:4] + ("A" if middle[4] != "A" else "B") + middle[5:]
    refused("request_invalid", lambda: enrolment.requested_names("\n".join(lines)))


# ---------------------------------------------------------------- every field


def _leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(tree, dict):
        return [leaf for name, value in tree.items() for leaf in _leaves(value, (*path, name))]
    if isinstance(tree, list):
        return [leaf for place, value in enumerate(tree) for leaf in _leaves(value, (*path, place))]
    return [path]


def _altered(value: Any) -> list[Any]:
    """Return other values of the same form."""
    if isinstance(value, int):
        return [value + 1]
    if value is None:
        return ["-----BEGIN CERTIFICATE-----"]
    digit = next((place for place, sign in enumerate(value) if sign.isdigit()), None)
    changed = [value[:-3] + ("BA=" if value.endswith("A=") else "A=="), value + "0", value.swapcase()]
    if digit is not None:
        changed.append(value[:digit] + str((int(value[digit]) + 1) % 10) + value[digit + 1 :])
    return [other for other in changed if other != value]


def _tampered(file: bytes) -> list[tuple[tuple[Any, ...], bytes]]:
    """Return the file with each of its values changed in turn, in its own byte form."""
    found = []
    for path in _leaves(msgspec.json.decode(file)):
        for other in _altered(_at(msgspec.json.decode(file), path)):
            tree = msgspec.json.decode(file)
            _at(tree, path[:-1])[path[-1]] = other
            found.append((path, msgspec.json.encode(tree, order="sorted") + b"\n"))
    return found


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def test_no_field_of_a_request_can_be_changed() -> None:
    verify_request(request_file())
    for path, file in _tampered(request_file()):
        with pytest.raises(Problem) as caught:
            verify_request(file)
        assert caught.value.code in {"request_invalid", "invitation_invalid"}, path


def test_no_field_of_a_grant_can_be_changed() -> None:
    verify_grant(enrolment.sign_grant(make_grant(), PLATFORM))
    for path, file in _tampered(enrolment.sign_grant(make_grant(), PLATFORM)):
        with pytest.raises(Problem) as caught:
            verify_grant(file)
        assert caught.value.code == "grant_invalid", path


def test_no_field_of_a_rotation_can_be_changed() -> None:
    wish = Rotation(link=LINK, centre="east", key=x25519(9), made_at=NOW)
    file = enrolment.sign_rotation(wish, DEVICE)
    public = DEVICE.public_key().public_bytes_raw()
    assert enrolment.verify_rotation(enrolment.read_rotation(file), public, NOW) == wish
    for path, other in _tampered(file):
        with pytest.raises(Problem) as caught:
            enrolment.verify_rotation(enrolment.read_rotation(other), public, NOW)
        assert caught.value.code == "request_invalid", path


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.replace(b'"version":1', b'"version":1,"extra":1'),
        lambda file: file.replace(b'"version":1', b'"version":2'),
        lambda file: file.replace(b'"version":1', b'"version":1,"version":1'),
        lambda file: file.replace(b":", b": ", 1),
        lambda file: file[:-2],
        lambda file: b"\xff" + file,
        lambda file: b"[" * 50_000,
        lambda file: b"null",
        lambda file: b"",
    ],
)
def test_only_the_one_byte_form_is_read(write: Callable[[bytes], bytes]) -> None:
    refused("request_invalid", lambda: enrolment.read_request(write(request_file())))


def test_a_huge_file_is_not_even_decoded() -> None:
    refused("too_large", lambda: enrolment.read_request(b" " * (enrolment.FILE_BYTES_MAX + 1)))


# ---------------------------------------------------------------- grants and rotations


@pytest.mark.parametrize(
    "changes",
    [
        {"valid_until": NOW},
        {"made_at": NOW + enrolment.SKEW_MAX + dt.timedelta(seconds=1)},
        {"addresses": [inner_v4(OTHER_LINK), inner_v6(LINK)]},
        {"addresses": [inner_v4(LINK), inner_v6(OTHER_LINK)]},
        {"service_address": "10.64.0.1"},
        {"service_address": "192.0.2.1"},
        {"link": "131017-1"},
    ],
)
def test_a_signed_grant_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    refused("grant_invalid", lambda: verify_grant(enrolment.sign_grant(make_grant(**changes), PLATFORM)))


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "10.64.0.9"},
        {"endpoint": "gateway.example:51820"},
        {"endpoint": "198.51.100.1:0"},
        {"endpoint": "198.51.100.1:70000"},
        {"endpoint": "2001:db8::1:51820"},
        {"endpoint": "198.51.100.1:51820\nPostUp = reboot"},
        {"gateway_key": bytes(32)},
    ],
)
def test_a_granted_centre_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    whole = make_grant()
    part = msgspec.structs.replace(whole.centres["east"], **changes)
    grant = msgspec.structs.replace(whole, centres={**whole.centres, "east": part})
    refused("grant_invalid", lambda: verify_grant(enrolment.sign_grant(grant, PLATFORM)))


def test_a_grant_of_another_platform_is_forged() -> None:
    forged = enrolment.sign_grant(make_grant(), Ed25519PrivateKey.generate())
    refused("grant_invalid", lambda: verify_grant(forged))
    named = forged.replace(
        msgspec.json.decode(forged)["signatures"]["key"].encode(), key_id(PLATFORM.public_key()).encode()
    )
    refused("grant_invalid", lambda: verify_grant(named))


def test_a_grant_that_has_ended_stays_readable_to_its_device() -> None:
    file = enrolment.sign_grant(make_grant(valid_until=NOW), PLATFORM)
    assert verify_grant(file, now=None).link == LINK


def test_a_rotation_is_the_devices_own_and_of_these_days() -> None:
    wish = Rotation(link=LINK, centre="east", key=x25519(9), made_at=NOW)
    signed = enrolment.read_rotation(enrolment.sign_rotation(wish, DEVICE))
    refused("request_invalid", lambda: enrolment.verify_rotation(signed, os.urandom(32), NOW))
    late = NOW + enrolment.AGE_MAX + dt.timedelta(seconds=1)
    refused("request_invalid", lambda: enrolment.verify_rotation(signed, DEVICE.public_key().public_bytes_raw(), late))


@pytest.mark.parametrize("kind", [b"", b"chukan-link-request\0", b"chukan-link-rotation"])
def test_a_signature_over_one_kind_of_file_is_none_over_another(kind: bytes) -> None:
    """What the device signed as something else must not pass for its signature on a rotation."""
    wish = Rotation(link=LINK, centre="east", key=x25519(9), made_at=NOW)
    body = msgspec.json.encode(wish, order="sorted")
    signature = DEVICE.sign(kind + body)
    forged = enrolment.SignedRotation(
        content=wish, signatures=msgspec.convert({"device": signature}, enrolment._RotationSignatures)
    )
    public = DEVICE.public_key().public_bytes_raw()
    refused("request_invalid", lambda: enrolment.verify_rotation(forged, public, NOW))
