"""``chukan link``: from an invitation to a revocation on the command line, with the files that a real device makes."""

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.clock import SystemClock
from chukan.ops.cli import run
from chukan.tenants.bodies import bodies
from chukan.tenants.directory import key_id
from chukan.tenants.link_plan import inner_v4, inner_v6
from chukan.tenants.numbers import body_check
from chukan.tenants.pem_keys import read_private_key
from chukan.tests.agencies.conftest import make_site, pair
from chukan.vpn import enrolment
from chukan.vpn.psk_sealing import open_psk

__all__ = ["make_site", "pair"]

pytestmark = pytest.mark.requirement("TEN-03")
SAPPORO, BODY = "9901011002000001", "011002"
BODIES = (each.code for each in bodies() if each.prefecture == "東京都")
CODE = re.compile(r"[0-9A-HJKMNP-TV-Z]{5}(-[0-9A-HJKMNP-TV-Z]{5,6}){4}")


@pytest.fixture(scope="module")
def sealing() -> dict[str, X25519PrivateKey]:
    """What the gateways open with, and nobody else has."""
    return {centre: X25519PrivateKey.generate() for centre in ("east", "west")}


def _public(private: X25519PrivateKey) -> str:
    return base64.b64encode(private.public_key().public_bytes_raw()).decode()


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class Operator:
    """Runs commands as an operator does; each prints JSON unless told otherwise."""

    def __init__(self, site: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.site = site
        self._capsys = capsys
        self.err = ""

    def __call__(self, *words: str, status: int = 0, sign: bool = False) -> Any:
        signed = ["--directory-key", str(self.site.directory_key)] if sign else []
        return json.loads(
            self.says("link", *words, "--config", str(self.site.config), "--json", *signed, status=status)
        )

    def says(self, *words: str, status: int = 0) -> str:
        self._capsys.readouterr()
        assert run(words) == status
        out, self.err = self._capsys.readouterr()
        return out

    def device(self, *words: str, folder: Path, status: int = 0) -> str:
        return self.says("device", *words, "--folder", str(folder), status=status)


@pytest.fixture
def link(pair: dict[str, Any], make_site: Callable[..., Any], tmp_path: Path, capsys: Any, sealing: Any) -> Operator:
    """An operator of an installation whose gateways are known."""
    operator = Operator(asyncio.run(make_site(pair, tmp_path)), capsys)
    for place, centre in enumerate(("east", "west"), start=1):
        file = tmp_path / f"{centre}-keys.json"
        private = X25519PrivateKey.from_private_bytes(bytes([place]) * 32)
        file.write_text(
            json.dumps({"centre": centre, "public_key": _public(private), "sealing_key": _public(sealing[centre])})
        )
        told = operator(
            "gateway", centre, "--by", "anna", "--endpoint", f"198.51.100.{place}:51820", "--keys", str(file)
        )
        assert (told["centre"], told["key"], told["draining"]) == (centre, _public(private), False)
    return operator


class Town:
    """A body with a device: what was handed over so far lies in its folder."""

    def __init__(self, operator: Operator, folder: Path, body: str | None = None) -> None:
        self.operator = operator
        self.body = body or next(BODIES)
        self.folder = folder / f"device-{self.body}"
        self.files = folder
        self.link = ""

    def invite(self, *words: str) -> Any:
        invited = self.operator("invite", "--body", self.body, "--by", "anna", *words)
        self.link = invited["link"]
        return invited

    def ask(self, code: str, *words: str) -> Path:
        key_file = self.operator.site.folder / "directory.public.pem"
        self.operator.device("init", "--link", self.link, "--platform-key", str(key_file), folder=self.folder)
        request = self.files / f"{self.link}-request.json"
        self.operator.device("request", "--code", code, "--out", str(request), *words, folder=self.folder)
        return request

    @property
    def grant(self) -> Path:
        return self.files / f"{self.link}-grant.json"

    def requested(self, *words: str) -> Path:
        request = self.ask(self.invite()["code"], *words)
        self.operator("enrol", str(request), "--by", "anna")
        return request

    def active(self) -> None:
        self.requested()
        self.operator("approve", self.link, "--by", "berta", "--to", str(self.grant), sign=True)

    def shown(self) -> Any:
        return self.operator("show", self.link)


@pytest.fixture
def town(link: Operator, tmp_path: Path) -> Town:
    return Town(link, tmp_path)


def test_a_body_comes_to_its_link_and_two_people_let_it_in(link: Operator, town: Town, sealing: Any) -> None:
    invited = town.invite()
    assert (invited["link"], bool(CODE.fullmatch(invited["code"]))) == (f"{town.body}-1", True)
    assert invited["platform_key"] == key_id(read_private_key(link.site.directory_key).public_key())
    request = town.ask(invited["code"])
    enrolled = link("enrol", str(request), "--by", "anna")
    assert enrolled == {"link": town.link, "digits": enrolled["digits"], "systems": []}
    # Who approves compares the same digits, without having had the file.
    assert (town.shown()["state"], town.shown()["digits"]) == ("requested", enrolled["digits"])
    assert link("enrol", str(request), "--by", "anna") == enrolled

    refused = link("approve", town.link, "--by", "anna", "--to", str(town.grant), sign=True, status=2)
    assert refused["code"] == "second_person"
    assert not town.grant.exists()
    approved = link("approve", town.link, "--by", "berta", "--to", str(town.grant), sign=True)
    assert (approved["centres"], approved["grant"]) == (["east", "west"], str(town.grant))
    link.device("accept", str(town.grant), folder=town.folder)

    # What the gateways can open and what the device opened is the same, and is in no file that travelled.
    public = read_private_key(link.site.directory_key).public_key()
    grant = enrolment.verify_grant(town.grant.read_bytes(), public, SystemClock().now())
    assert grant.addresses == [inner_v4(town.link), inner_v6(town.link)]
    assert [grant.centres[centre].address for centre in ("east", "west")] == ["10.255.0.1", "10.255.0.2"]
    assert (grant.service_address, grant.service_port, grant.health_port) == ("10.255.255.1", 8443, 8445)
    rows = asyncio.run(
        link.site.fetch("east", "SELECT centre, psk FROM chukan.link_peers WHERE link = $1 ORDER BY centre", town.link)
    )
    opened = {
        row["centre"]: open_psk(sealing[row["centre"]], row["psk"], link=town.link, to=row["centre"]) for row in rows
    }
    assert len({*opened.values()}) == 2
    for centre, psk in opened.items():
        assert f"PresharedKey = {_text(psk)}" in (town.folder / f"chukan-{centre}.conf").read_text()
    travelled = request.read_bytes() + town.grant.read_bytes()
    assert not [psk for psk in opened.values() if psk in travelled or _text(psk).encode() in travelled]
    assert town.shown()["state"] == "active"
    history = link("history", town.link)["changes"]
    assert [(each["act"], each["who"], each.get("second")) for each in reversed(history)] == [
        ("invite", "anna", None),
        ("request", "anna", None),
        ("approve", "anna", "berta"),
    ]


def test_a_code_is_on_standard_output_once_and_nowhere_else(link: Operator, town: Town, tmp_path: Path) -> None:
    text = link.says("link", "invite", "--body", town.body, "--by", "anna", "--config", str(link.site.config))
    code = next(iter(CODE.finditer(text)))[0]
    assert text.count(code) == 1
    assert code not in link.err
    bare = code.replace("-", "")
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size < 1_000_000]
    assert not [path for path in files if code.encode() in path.read_bytes() or bare.encode() in path.read_bytes()]
    rows = asyncio.run(link.site.fetch("east", "SELECT l::text AS t FROM chukan.links l"))
    rows += asyncio.run(link.site.fetch("east", "SELECT c::text AS t FROM chukan.link_change c"))
    assert not [row for row in rows if code in row["t"] or bare in row["t"]]


def test_a_request_with_another_code_or_altered_is_not_taken_in(link: Operator, town: Town, tmp_path: Path) -> None:
    town.invite()
    stranger = Town(link, tmp_path)
    request = town.ask(stranger.invite()["code"])
    assert link("enrol", str(request), "--by", "anna", status=2)["code"] == "invitation_invalid"
    again = Town(link, tmp_path)
    good = again.ask(again.invite()["code"])
    altered = json.loads(good.read_bytes())
    altered["content"]["keys"]["east"] = altered["content"]["keys"]["west"]
    good.write_bytes(json.dumps(altered, sort_keys=True, separators=(",", ":")).encode())
    assert link("enrol", str(good), "--by", "anna", status=2)["code"] in ("invitation_invalid", "request_invalid")
    assert link("enrol", str(tmp_path / "none.json"), "--by", "anna", status=2)["code"] == "request_invalid"
    assert town.shown()["state"] == again.shown()["state"] == "invited"


def test_the_certificate_of_the_body_s_system_comes_in_the_same_step(link: Operator, tmp_path: Path) -> None:
    site = link.site
    signed = ["--config", str(site.config), "--json", "--directory-key", str(site.directory_key)]
    link.says("agency", "prepare-keystores", "--config", str(site.config))
    link.says("agency", "add", SAPPORO, *signed)
    for name, kind, function in (("kokuho", "system", "queries"), ("sato", "officer", "order")):
        link.says(
            "agency", "client", "add", name, "--kind", kind, "--name", name, "--agency", SAPPORO,
            "--function", function, *signed,
        )  # fmt: skip
    town = Town(link, tmp_path, BODY)
    request = town.requested("--client", "kokuho")
    pki = str(site.folder / "pki")
    words = ["approve", town.link, "--by", "berta", "--to", str(town.grant), "--certificate-by", pki]
    assert link(*words, sign=True, status=2)["pointer"] == "/request"
    link(*words, "--request", str(request), sign=True)
    link.device("accept", str(town.grant), folder=town.folder)
    chain = x509.load_pem_x509_certificates((town.folder / "system-certificate.pem").read_bytes())
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:chukan:client:kokuho"]
    assert len(chain) == 2

    # A system of another body, an officer, or somebody whom nobody registered, gets none.
    other = Town(link, tmp_path)
    for name, code in (("kokuho", "request_invalid"), ("sato", "request_invalid"), ("nobody", "unregistered_system")):
        each = Town(link, tmp_path / name, BODY if name != "kokuho" else other.body)
        each.files.mkdir()
        asked = each.requested("--client", name)
        words = ["approve", each.link, "--by", "berta", "--to", str(each.grant), "--request", str(asked)]
        found = link(*words, "--certificate-by", pki, sign=True, status=2)
        assert found["code"] == code
        assert each.shown()["state"] == "requested"
        assert not each.grant.exists()


def test_stopping_takes_one_and_letting_in_again_takes_another(link: Operator, town: Town) -> None:
    town.active()
    assert link("suspend", town.link, "--by", "anna", "--reason", "drill") == {"link": town.link, "state": "suspended"}
    assert town.shown()["suspended_by"] == "anna"
    assert link("resume", town.link, "--by", "Anna", "--reason", "drill", status=2)["code"] == "second_person"
    assert link("suspend", town.link, "--by", "anna", "--reason", "drill", status=2)["code"] == "link_state"
    assert link("resume", town.link, "--by", "berta", "--reason", "drill")["state"] == "active"
    assert link("suspend", town.link, "--by", "anna", "--reason", "本人 123456789018", status=2)["pointer"] == "/reason"
    for name in ("officer:anna", "gateway:east", "a b", ""):
        assert link("suspend", town.link, "--by", name, "--reason", "drill", status=2)["pointer"] == "/by"


def test_a_link_is_extended_by_two_people_and_keeps_its_keys(link: Operator, town: Town) -> None:
    town.active()
    before = town.shown()
    words = ("extend", town.link, "--until", "2031-04-01T00:00:00+09:00", "--asked-by", "anna", "--by")
    assert link(*words, "Anna", status=2)["code"] == "second_person"
    bare = ("extend", town.link, "--until", "2031-04-01", "--asked-by", "anna", "--by", "berta")
    assert link(*bare, status=2)["pointer"] == "--until"
    assert town.shown() == before
    assert link(*words, "berta") == {"link": town.link, "valid_until": "2031-03-31T15:00:00Z"}
    after = town.shown()
    assert after["valid_until"] == "2031-03-31T15:00:00Z"
    assert {key for key in after if after[key] != before[key]} <= {"valid_until", "generation"}


def test_what_cannot_be_taken_back_asks_first(
    link: Operator, town: Town, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    town.active()
    nothing = (tmp_path / "nothing").open("w+")
    monkeypatch.setattr("sys.stdin", nothing)
    assert link("revoke", town.link, "--by", "anna", "--reason", "lost", status=2)["code"] == "not_confirmed"
    assert town.shown()["state"] == "active"
    assert link("drain", "west", "--by", "anna", status=2)["code"] == "not_confirmed"
    assert link("revoke", town.link, "--by", "anna", "--reason", "lost", "--yes")["state"] == "revoked"
    assert town.shown()["state"] == "revoked"
    assert link("drain", "west", "--by", "anna", "--yes") == {"centre": "west", "draining": True, "changed": True}
    assert link("drain", "west", "--by", "anna", "--yes")["changed"] is False
    assert link("drain", "west", "--by", "anna", "--off") == {"centre": "west", "draining": False, "changed": True}
    nothing.close()


def test_a_device_s_new_key_comes_in_by_one_centre_at_a_time(link: Operator, town: Town, tmp_path: Path) -> None:
    town.active()
    link.device("accept", str(town.grant), folder=town.folder)
    wish = tmp_path / "wish.json"
    link.device("rotate", "--centre", "east", "--out", str(wish), folder=town.folder)
    grant = tmp_path / "next.json"
    words = ["rotate", town.link, "--by", "anna", "--wish", str(wish), "--to", str(grant)]
    assert link(*words, sign=True)["centres"] == ["east"]
    centres = town.shown()["centres"]
    assert centres["east"]["next_key"] not in (None, centres["east"]["key"])
    assert centres["west"]["next_key"] is None
    link.device("accept", str(grant), folder=town.folder)
    # A second one in its place only on demand: the device may have turned to the first.
    again = ["rotate", town.link, "--by", "anna", "--wish", str(wish), "--to", str(tmp_path / "again.json")]
    assert link(*again, sign=True, status=2)["code"] == "link_state"
    assert not (tmp_path / "again.json").exists()
    assert link(*again, "--replace", sign=True)["centres"] == ["east"]
    assert link(*again, "--replace", sign=True, status=2)["code"] == "file_exists"


def test_pre_shared_keys_rotate_without_the_device_s_wish(link: Operator, town: Town, tmp_path: Path) -> None:
    town.active()
    rotated = link("rotate", town.link, "--by", "anna", "--to", str(tmp_path / "psk.json"), sign=True)
    assert rotated["centres"] == ["east", "west"]
    centres = town.shown()["centres"]
    assert [(end["next_key"], end["next_psk"]) for end in centres.values()] == [(None, True)] * 2


def test_a_device_of_one_tunnel_has_one_key_at_both_centres(
    link: Operator, town: Town, tmp_path: Path, sealing: Any
) -> None:
    shared = _public(X25519PrivateKey.from_private_bytes(bytes([9]) * 32))
    for centre in ("east", "west"):
        link("gateway", centre, "--by", "anna", "--service-key", shared)
    code = town.invite("--mode", "service")["code"]
    key_file = link.site.folder / "directory.public.pem"
    given = ("--link", town.link, "--platform-key", str(key_file), "--centre", "service")
    link.device("init", *given, folder=town.folder)
    request = tmp_path / "service.json"
    link.device("request", "--code", code, "--out", str(request), folder=town.folder)
    link("enrol", str(request), "--by", "anna")
    assert link("approve", town.link, "--by", "berta", "--to", str(town.grant), sign=True)["centres"] == ["service"]
    link.device("accept", str(town.grant), folder=town.folder)
    end = json.loads(town.grant.read_bytes())["content"]["centres"]["service"]
    assert (end["address"], end["endpoint"], end["gateway_key"]) == ("10.255.255.1", "198.51.100.1:51821", shared)
    rows = asyncio.run(link.site.fetch("east", "SELECT * FROM chukan.link_peers WHERE link = $1", town.link))
    assert len({row["public_key"] for row in rows}) == 1
    psks = {open_psk(sealing[row["centre"]], row["psk"], link=town.link, to=row["centre"]) for row in rows}
    assert len(psks) == 1


def test_links_are_listed_by_body_state_and_prefecture(link: Operator, tmp_path: Path) -> None:
    here, there = Town(link, tmp_path), Town(link, tmp_path, "271004")
    here.invite()
    there.invite()

    def names(*words: str) -> set[str]:
        return {row["link"] for row in link("list", *words)["links"]}

    assert {here.link, there.link} <= names()
    assert names("--body", here.body) == {here.link}
    assert here.link in names("--prefecture", "13")
    assert here.link not in names("--prefecture", "大阪府")
    assert there.link in names("--prefecture", "大阪府", "--state", "invited")
    assert names("--body", there.body, "--state", "revoked") == set()
    assert link("list", "--prefecture", "Atlantis", status=2)["pointer"] == "/prefecture"
    text = link.says("link", "list", "--config", str(link.site.config))
    assert "大阪市" in text
    assert "大阪市" in link.says("link", "show", there.link, "--config", str(link.site.config))
    assert "invited" in link.says("link", "history", there.link, "--config", str(link.site.config))


def test_a_gateway_turns_to_its_next_key_on_a_word_of_its_own(link: Operator) -> None:
    following = _public(X25519PrivateKey.from_private_bytes(bytes([7]) * 32))
    told = link("gateway", "east", "--by", "anna", "--next-key", following, "--next-endpoint", "198.51.100.1:51822")
    assert (told["next_key"], told["next_endpoint"]) == (following, "198.51.100.1:51822")
    assert link("gateway", "east", "--by", "anna", "--turn", "--key", following, status=2)["pointer"] == "/turn"
    told = link("gateway", "east", "--by", "anna", "--turn")
    assert (told["key"], told["endpoint"], told["next_key"]) == (following, "198.51.100.1:51822", None)
    assert link("gateway", "east", "--by", "anna", status=2)["pointer"] == "/turn"
    assert link("gateway", "east", "--by", "anna", "--key", "AAAA", status=2)["pointer"] == "/key"
    assert (
        link("gateway", "west", "--by", "anna", "--keys", str(link.site.folder / "east-keys.json"), status=2)["pointer"]
        == "/keys/centre"
    )


def test_a_body_s_code_and_bounds_are_checked_before_anything_is_made(link: Operator) -> None:
    before = len(link("list")["links"])
    assert link("invite", "--body", "131017", "--by", "anna", status=2)["pointer"] == "/body"
    assert link("invite", "--body", "131016", "--by", "anna", "--days", "15", status=2)["pointer"] == "/days"
    assert len(link("list")["links"]) == before


def test_the_links_of_the_whole_nation_are_listed_at_once(link: Operator) -> None:
    codes = [f"{number:05d}" for number in range(50_000, 52_500)]
    codes = [code + body_check(code) for code in codes]
    rows = (
        "INSERT INTO chukan.links (link, body, serial, mode, kind, state, generation, invited_by, invitation_key,"
        " invitation_expires_at, suspended_by) SELECT b || '-1', b, 1, 'pair', 'wireguard', 'revoked', 1, 'anna',"
        " sha256(convert_to(b, 'UTF8')), now(), NULL FROM unnest($1::text[]) b"
    )
    ends = (
        "INSERT INTO chukan.link_peers (link, centre, public_key)"
        " SELECT b || '-1', c, sha256(convert_to(b || c, 'UTF8'))"
        " FROM unnest($1::text[]) b, unnest(ARRAY['east', 'west']) c"
    )
    # They stay, for rows of links are never deleted; the rest of the tests names links of its own.
    asyncio.run(link.site.fetch("east", rows, codes))
    asyncio.run(link.site.fetch("east", ends, codes))
    begun = time.perf_counter()
    listed = link("list", "--state", "revoked")["links"]
    assert {each["link"] for each in listed} >= {f"{code}-1" for code in codes}
    text = link.says("link", "list", "--state", "revoked", "--config", str(link.site.config))
    assert text.count("east never west never") >= len(codes)
    # Both together; a table library alone takes longer for the text.
    assert time.perf_counter() - begun < 10
