"""A certificate that was revoked signs no version of the master data; what it signed before stays in force."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops import certificate_life as life
from chukan.ops.certificates import Authority, Issued, read_certificates, read_identity
from chukan.platform.exchange.masters import MastersInForce
from chukan.platform.law import Law
from chukan.platform.law.masters import complete, shipped
from chukan.platform.revocation_watch import RevocationLists
from chukan.tenants import masters
from chukan.tenants.masters import Content, Master

pytestmark = pytest.mark.requirement("SEC-02")

HOUR = dt.timedelta(hours=1)
TWO = ("operator.aoki", "operator.baba")


class Deaf:
    """Is told how lists stand."""

    def revocation_list(self, name: str, this_update: float, next_update: float, revoked: int) -> None:
        """Take nothing."""

    def revocation_list_usable(self, name: str, *, usable: bool) -> None:
        """Take nothing."""

    def access_refused(self, code: str) -> None:
        """Take nothing."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority.create(tmp_path / "pki", "Example", SystemClock(), "sandbox")
    for name in TWO:
        made.issue_client(name)
    return made


def lists_after(authority: Authority, revoked: str) -> RevocationLists:
    """Revoke somebody's certificate now, and return the lists of an exchange that was told."""
    (card, *_), _ = person(authority, revoked)
    life.revoke(authority, [f"{card.serial_number:x}"], "keyCompromise")
    life.write_list(authority)
    roots = read_certificates(authority.folder / "ca.pem")
    return RevocationLists({"ours": authority.folder / "crl.pem"}, roots, SystemClock(), Deaf())


def person(authority: Authority, name: str) -> tuple[Any, Any]:
    at = authority.folder / "clients" / name
    issued = Issued(at / "certificate.pem", at / "key.pem")
    return read_certificates(issued.certificate), read_identity(issued).key


def version(authority: Authority, at: dt.datetime, files: dict[str, str]) -> Master:
    body = masters.pack(
        Content(version=1, base=0, environment="sandbox", note="改正", effective_at=at + HOUR, files=files)
    )
    digest = masters.digest_of(body)
    acts: tuple[tuple[masters.Act, str], ...] = (("propose", TWO[0]), ("approve", TWO[1]))
    return Master(digest, 1, body, *(masters.sign(act, digest, *person(authority, who), at) for act, who in acts))


@pytest.mark.parametrize("revoked", TWO)
def test_neither_of_two_signs_with_a_revoked_certificate(authority: Authority, revoked: str) -> None:
    lists, now = lists_after(authority, revoked), SystemClock().now()
    roots = read_certificates(authority.folder / "ca.pem")
    before, after = (
        version(authority, at, {"gap_codes.csv": "code,name_ja\n"}) for at in (now - HOUR / 60, now + HOUR)
    )
    (card, *_), _ = person(authority, revoked)
    assert not lists.revoked_by(card, now - HOUR / 60)
    assert lists.revoked_by(card, now)
    with pytest.raises(Problem, match="master_invalid"):
        masters.verify(after, after.digest, trusted=roots, environment="sandbox", revoked=lists.revoked_by)
    masters.verify(before, before.digest, trusted=roots, environment="sandbox", revoked=lists.revoked_by)


async def test_an_exchange_holds_no_version_that_was_signed_so(authority: Authority) -> None:
    lists, now = lists_after(authority, TWO[0]), SystemClock().now()
    roots = read_certificates(authority.folder / "ca.pem")
    release, held = complete({}, None), {}
    files = complete({"gap_codes.csv": release["gap_codes.csv"] + "97,試行,trial\n"}, None)
    for word, at in (("before", now - HOUR / 60), ("after", now + HOUR)):
        in_force = MastersInForce(shipped(Law.load(), None), None, lambda: roots, "sandbox", lists.revoked_by)
        master = version(authority, at, files)
        directory = Common(masters.name_in_force(1, master.digest))
        await in_force.fetch("east", Sets(master), directory)  # type: ignore[arg-type]
        held[word] = not in_force.lacks(directory)  # type: ignore[arg-type]
    assert held == {"before": True, "after": False}


class Common:
    """Common data that names a version."""

    number = 1

    def __init__(self, name: str) -> None:
        self.snapshot = type("Snapshot", (), {"law_number": name})


class Sets:
    """A cell in which one version rests."""

    def __init__(self, master: Master) -> None:
        self._master = master

    async def master(self, digest: bytes) -> Master | None:
        return self._master if digest == self._master.digest else None
