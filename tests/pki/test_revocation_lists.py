"""Revocation lists as an exchange takes them: signed, whole, dated, not older; else the last good one goes on."""

import asyncio
import base64
import datetime as dt
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chukan import log
from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.ops import certificate_forms as forms
from chukan.ops import certificate_life as life
from chukan.ops.certificate_forms import Identity as Identified
from chukan.ops.certificates import Authority, Issued, read_certificates, read_identity
from chukan.platform import revocation, revocation_watch
from chukan.platform.revocation import Identity, RevocationList
from chukan.platform.revocation_watch import RevocationLists

NOW = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
DAY_S = 86400.0
PEM = serialization.Encoding.PEM


class Told:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.usable: dict[str, bool] = {}
        self.dates: dict[str, tuple[float, float]] = {}
        self.revoked: dict[str, int] = {}
        self.codes: list[str] = []

    def revocation_list(self, name: str, this_update: float, next_update: float, revoked: int) -> None:
        self.dates[name], self.revoked[name] = (this_update, next_update), revoked

    def revocation_list_usable(self, name: str, *, usable: bool) -> None:
        self.usable[name] = usable

    def access_refused(self, code: str) -> None:
        self.codes.append(code)


class World:
    """An authority with a list in force, and whoever watches it."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.told = ManualClock(NOW), Told()
        self.authority = Authority.create(folder / "pki", "Example", self.clock)
        self.file = self.authority.folder / life.REVOCATION_FILE
        self.roots = read_certificates(self.authority.trusted)
        life.write_list(self.authority)
        self.numbers = 0

    def watch(self) -> RevocationLists:
        return RevocationLists({"ours": self.file}, self.roots, self.clock, self.told)

    def client(self) -> Identity:
        self.numbers += 1
        issued = self.authority.issue_client(f"c{self.numbers}")
        certificate = read_certificates(issued.certificate)[0]
        return Identity(certificate.issuer.public_bytes(), certificate.serial_number)

    def revoke(self, identity: Identity) -> None:
        life.revoke(self.authority, [f"{identity.serial:x}"], "superseded")
        life.write_list(self.authority)

    def parse(self, content: bytes) -> RevocationList:
        return revocation.parse(content, self.roots, self.clock.now())

    def made(self, change: Callable[[Any], Any] = lambda made: made, *, number: bool = True, **given: Any) -> bytes:
        """Return a list of the authority's that differs from a good one in one way."""
        issuer, key = given.get("issuing", self.authority.issuing)
        made = x509.CertificateRevocationListBuilder().issuer_name(given.get("name", issuer.subject))
        last = given.get("last", NOW)
        made = made.last_update(last).next_update(last + dt.timedelta(days=7))
        if number:
            made = made.add_extension(x509.CRLNumber(9), critical=False)
        signed = change(made).sign(given.get("key", key), hashes.SHA256()).public_bytes(PEM)
        chain = b"" if given.get("bare") else given.get("chain", issuer).public_bytes(PEM)
        content: bytes = signed + chain
        return content


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def lines() -> Any:
    stream = io.StringIO()
    log.configure("info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    log.configure()


def _forged(world: World, tmp_path: Path) -> bytes:
    """Return a list in our authority's name, with our issuing certificate, signed by somebody else's key."""
    thief = Authority.create(tmp_path / "thief", "Example", world.clock)
    return world.made(key=thief.issuing.key)


def _delta(made: Any) -> Any:
    return made.add_extension(x509.DeltaCRLIndicator(1), critical=True)


def test_a_good_list_is_taken(world: World) -> None:
    assert world.parse(world.made()).number == 9


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("forged", "signed by"),
        ("foreign", "issuing certificate below"),
        ("no issuing certificate", "PEM"),
        ("no signer of lists", "issuing certificate below"),
        ("an issuer that ended", "issuing certificate below"),
        ("truncated", "PEM"),
        ("bytes changed", ""),
        ("no number", "number"),
        ("of the future", "future"),
        ("delta", "whole list"),
        ("too large", "bytes"),
        ("nothing", "PEM"),
    ],
)
def test_what_is_not_a_good_list_is_refused(world: World, tmp_path: Path, how: str, says: str) -> None:
    good = world.made()
    foreign = Authority.create(tmp_path / "foreign", "Example", world.clock)
    # Directly below the root, and yet no authority; an authority, and yet of long ago.
    folder = world.authority.folder / "root"
    root = read_identity(Issued(folder / "certificate.pem", folder / "key.pem"))
    none, ended = ec.generate_private_key(ec.SECP256R1()), ManualClock(NOW - dt.timedelta(days=2000))
    form = forms.builder("none", root.certificate, none.public_key(), world.clock, 9)
    form = form.add_extension(forms.key_usage(authority=False), critical=True)
    form = form.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    no_signer = Identified(form.sign(root.key, hashes.SHA256()), none)
    of_old = forms.make_issuing("of old", root, ended)
    der = bytearray(x509.load_pem_x509_crl(good).public_bytes(serialization.Encoding.DER))
    der[len(der) // 2] ^= 1
    contents: dict[str, Callable[[], bytes]] = {
        "forged": lambda: _forged(world, tmp_path),
        "foreign": lambda: world.made(issuing=foreign.issuing),
        "no issuing certificate": lambda: world.made(bare=True),
        "no signer of lists": lambda: world.made(issuing=no_signer),
        "an issuer that ended": lambda: world.made(issuing=of_old),
        "truncated": lambda: good[: len(good) // 3],
        "bytes changed": lambda: _pem(bytes(der)) + world.authority.issuing.certificate.public_bytes(PEM),
        "no number": lambda: world.made(number=False),
        "of the future": lambda: world.made(last=NOW + dt.timedelta(hours=1)),
        "delta": lambda: world.made(_delta),
        "too large": lambda: good + b"\n" * revocation.BYTES_MAX,
        "nothing": lambda: b"",
    }
    with pytest.raises(Problem) as refused:
        world.parse(contents[how]())
    assert refused.value.code == "revocation_list_invalid"
    assert says in (refused.value.expected or "")


def _pem(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN X509 CRL-----\n" + body + b"-----END X509 CRL-----\n"


def test_more_certificates_than_the_bound_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for identity in (world.client(), world.client()):
        world.revoke(identity)
    monkeypatch.setattr(revocation, "ENTRIES_MAX", 1)
    with pytest.raises(Problem):
        world.parse(world.file.read_bytes())


async def test_a_new_list_is_honoured_at_the_next_look_and_followers_hear_of_it(world: World) -> None:
    one, other = world.client(), world.client()
    lists, heard = world.watch(), []
    lists.follow(lambda: heard.append(lists.refuses(one)))
    await lists.look()
    assert (lists.refuses(one), heard) == (False, [])
    world.revoke(one)
    await lists.look()
    assert (lists.refuses(one), lists.refuses(other), lists.refuses(None), heard) == (True, False, False, [True])
    assert lists.refuses(Identity(b"another issuer", one.serial)) is False
    assert (world.told.usable, world.told.revoked) == ({"ours": True}, {"ours": 1})
    assert world.told.dates["ours"] == (NOW.timestamp(), NOW.timestamp() + 7 * DAY_S)


@pytest.mark.parametrize("how", ["forged", "truncated", "missing", "older", "of another authority"])
async def test_the_last_good_list_goes_on_loudly_until_a_good_one_comes(
    world: World, tmp_path: Path, lines: Callable[[], Any], how: str
) -> None:
    one, other = world.client(), world.client()
    older = world.file.read_bytes()
    world.revoke(one)
    lists, good = world.watch(), world.file.read_bytes()
    if how == "missing":
        world.file.unlink()
    elif how == "of another authority":
        second = Authority.create(tmp_path / "second", "Second", world.clock)
        world.roots += read_certificates(second.trusted)
        lists = world.watch()
        for _ in range(5):
            life.write_list(second)
        world.file.write_bytes((second.folder / life.REVOCATION_FILE).read_bytes())
    else:
        forged = _forged(world, tmp_path)
        world.file.write_bytes({"forged": forged, "truncated": good[:300], "older": older}[how])
    for _ in range(3):
        await lists.look()
        world.clock.advance(2 * revocation_watch.AGAIN_S)
    assert (lists.refuses(one), lists.refuses(other)) == (True, False)
    assert world.told.usable == {"ours": False}
    errors = [line for line in lines() if line["level"] == "error"]
    assert [line["event"] for line in errors] == ["a revocation list was not taken, the last good one goes on"]
    world.revoke(other)
    await lists.look()
    assert (lists.refuses(one), lists.refuses(other), world.told.usable) == (True, True, {"ours": True})


async def test_a_list_past_its_next_update_goes_on_and_is_told_once(world: World, lines: Callable[[], Any]) -> None:
    one, other = world.client(), world.client()
    world.revoke(one)
    lists = world.watch()
    world.clock.advance(8 * DAY_S)
    for _ in range(3):
        await lists.look()
    assert (lists.refuses(one), lists.refuses(other)) == (True, False)
    errors = [line["event"] for line in lines() if line["level"] == "error"]
    assert errors == ["a revocation list is past its next update, and goes on"]
    # Also one that is late already when it comes, and at a start: what it revokes is revoked.
    assert world.watch().refuses(one) is True


@pytest.mark.parametrize("how", ["forged", "missing"])
def test_who_is_told_to_honour_a_list_does_not_start_without_a_good_one(world: World, tmp_path: Path, how: str) -> None:
    forged = _forged(world, tmp_path)
    world.file.unlink()
    if how == "forged":
        world.file.write_bytes(forged)
    with pytest.raises(Problem) as refused:
        world.watch()
    assert refused.value.code == "revocation_list_invalid"


async def test_a_list_of_the_future_is_taken_when_its_time_has_come(world: World) -> None:
    lists = world.watch()
    world.clock.advance(600)
    one = world.client()
    world.revoke(one)
    world.clock._now = NOW
    await lists.look()
    assert (lists.refuses(one), world.told.usable) == (False, {"ours": False})
    world.clock.advance(600)
    await lists.look()
    assert (lists.refuses(one), world.told.usable) == (True, {"ours": True})


async def test_the_watch_looks_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_watch, "EVERY_S", 0.01)
    lists, changed, one = world.watch(), asyncio.Event(), world.client()
    lists.follow(changed.set)
    running = asyncio.ensure_future(lists.run())
    world.revoke(one)
    async with asyncio.timeout(10):
        await changed.wait()
    running.cancel()
    assert lists.refuses(one) is True
