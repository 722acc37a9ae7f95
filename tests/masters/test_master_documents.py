"""Versions of the master data: what two persons signed, and nothing else; what they say otherwise than before."""

import datetime as dt
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.certificates import Authority, Issued, read_certificates, read_identity
from chukan.platform.law import Law
from chukan.platform.law.masters import LawInForce, complete, read_version
from chukan.tenants import masters
from chukan.tenants.masters import Content, Master

pytestmark = pytest.mark.requirement("SEC-02")

NOW = SystemClock().now()
CHANGED = {"gap_codes.csv": "code,name_ja\n1,未申告\n"}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Certificates of an authority: two who change masters, one who does not, and one of another authority."""
    found: dict[str, Any] = {}
    for place, names in (("ours", ("operator.aoki", "operator.baba", "tax-system")), ("theirs", ("operator.aoki",))):
        folder = tmp_path_factory.mktemp(place)
        authority = Authority.create(folder / "pki", "Example", SystemClock(), "sandbox")
        for name in names:
            authority.issue_client(name)
            at = authority.folder / "clients" / name
            issued = Issued(at / "certificate.pem", at / "key.pem")
            key = name if place == "ours" else f"foreign {name}"
            found[key] = (read_certificates(issued.certificate), read_identity(issued).key)
        found[place] = read_certificates(authority.folder / "ca.pem")
    return found


def content(**changes: Any) -> Content:
    given = {"version": 1, "base": 0, "environment": "sandbox", "note": "改正", "effective_at": NOW, "files": CHANGED}
    return Content(**{**given, **changes})


def made(people: dict[str, Any], first: str = "operator.aoki", second: str = "operator.baba") -> Master:
    body = masters.pack(content())
    digest = masters.digest_of(body)
    signs = [masters.sign(act, digest, *people[who], NOW) for act, who in (("propose", first), ("approve", second))]
    return Master(digest, 1, body, *signs)


def verify(people: dict[str, Any], master: Master, wanted: bytes | None = None) -> masters.Verified:
    return masters.verify(master, wanted or master.digest, trusted=people["ours"], environment="sandbox")


def test_what_two_persons_signed_is_read(people: dict[str, Any]) -> None:
    found = verify(people, made(people))
    assert (found.proposed_by, found.approved_by) == ("operator.aoki", "operator.baba")
    assert found.content.files == CHANGED


@pytest.mark.requirement("LAW-04")
def test_one_person_alone_is_refused(people: dict[str, Any]) -> None:
    with pytest.raises(Problem, match="second_person"):
        verify(people, made(people, second="operator.aoki"))
    with pytest.raises(Problem, match="second_person"):
        verify(people, made(people)._replace(approval=None))
    whole = made(people)
    with pytest.raises(Problem, match="master_invalid"):
        verify(people, whole._replace(approval=whole.proposal))


SPOILT: dict[str, Callable[[Master], Master]] = {
    "other bytes": lambda m: m._replace(body=masters.pack(content(note="x"))),
    "other bytes under their own digest": lambda m: m._replace(
        body=masters.pack(content(note="x")), digest=masters.digest_of(masters.pack(content(note="x")))
    ),
    "a later time": lambda m: m._replace(approval=_at(m.approval, NOW + dt.timedelta(seconds=1))),
    "no certificate": lambda m: m._replace(proposal=b"{}"),
    "not even JSON": lambda m: m._replace(proposal=b"\xff"),
}


def _at(signature: bytes | None, at: dt.datetime) -> bytes:
    found = masters.read_signature(signature or b"")
    return msgspec.json.encode(msgspec.structs.replace(found, at=at))


@pytest.mark.parametrize("how", SPOILT)
def test_whatever_was_altered_is_refused(people: dict[str, Any], how: str) -> None:
    with pytest.raises(Problem, match="master_invalid"):
        verify(people, SPOILT[how](made(people)))


def test_a_certificate_of_another_authority_or_of_a_system_signs_nothing(people: dict[str, Any]) -> None:
    with pytest.raises(Problem, match="master_invalid"):
        verify(people, made(people, first="foreign operator.aoki"))
    with pytest.raises(Problem, match="master_invalid"):
        made(people, second="tax-system")


def test_another_environments_version_is_refused(people: dict[str, Any]) -> None:
    with pytest.raises(Problem, match="other_environment"):
        masters.verify(made(people), made(people).digest, trusted=people["ours"], environment="production")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x" * 100,
        zlib.compress(b"{}"),
        zlib.compress(b" " * (masters.BYTES_MAX + 1)),
        masters.pack(content()) + b"x",
        masters.pack(content())[:-1],
    ],
    ids=["empty", "noise", "no members", "too long unpacked", "something behind", "cut off"],
)
def test_what_is_no_version_is_refused(body: bytes) -> None:
    with pytest.raises(Problem, match="master_invalid"):
        masters.unpack(body)


def test_the_common_data_name_a_version_by_its_digest_or_the_releases_data() -> None:
    digest = masters.digest_of(b"x")
    assert masters.named(masters.name_in_force(7, digest)) == (7, digest)
    assert masters.named(123) is masters.named("123") is None
    for half in ("master:7", "master:07:" + digest.hex(), "master:7:ff", "master:x:" + digest.hex(), "master:"):
        with pytest.raises(Problem, match="master_invalid"):
            masters.named(half)


@pytest.mark.requirement("LAW-04")
def test_the_difference_names_rows_that_came_went_and_changed() -> None:
    before = {"a.csv": "# c\nk,v\n1,x\n2,y\n3,z\n", "b.csv": "h\n"}
    after = {"a.csv": "k,v\n1,x\n2,new\n4,w\n", "c.toml": "x = 1\n"}
    a, b, c = masters.compare(before, after)
    assert (a.added, a.removed, a.changed) == (["4,w"], ["3,z"], [("2,y", "2,new")])
    assert (b.file, b.removed, c.file, c.added) == ("b.csv", ["h"], "c.toml", ["x = 1"])
    assert masters.compare(before, dict(before)) == []
    assert masters.compare({"a.csv": "1,x\n1,x\n"}, {"a.csv": "1,x\n"})[0].removed == ["1,x"]


def test_a_version_is_read_as_the_release_is_and_its_own_files_count(tmp_path: Path) -> None:
    files = complete({}, None)
    assert read_version(1, files, None).law.number == Law.load().number
    law = read_version(1, {**files, "gap_codes.csv": files["gap_codes.csv"] + "97,試行,trial\n"}, None).law
    assert "97" in law.gap_codes
    assert law.number != Law.load().number


def test_the_list_of_agencies_is_part_of_it() -> None:
    files = complete({}, None)
    last = files["agencies.csv"].splitlines()[-1]
    new = "9909000000999999"
    longer = read_version(1, {**files, "agencies.csv": files["agencies.csv"] + last.replace(last[:16], new)}, None).law
    asked = {"inquirer": "9901011002000001", "affair": "x", "procedure": "x", "kind": "x", "day": dt.date(2026, 11, 1)}
    assert Law.load().decide(provider=new, **asked).reason == "unknown_provider"
    assert longer.decide(provider=new, **asked).reason == "unknown_affair"
    assert longer.number != Law.load().number


@pytest.mark.parametrize(
    "files",
    [
        {"gap_code.csv": "code,name_ja\n"},
        {"lists.toml": "[[list]"},
        {"affairs.csv": "code\n1\n"},
        {"calendar.toml": "[[function]]\nname = 'counter'\n"},
        {"agencies.csv": "code,name\n1,x\n"},
    ],
    ids=["a misspelt name", "no TOML", "a column missing", "no such function", "agencies without a body"],
)
def test_a_version_that_contradicts_itself_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(Problem, match="master_invalid"):
        complete(files, None)


def test_who_keeps_a_law_for_long_asks_the_one_of_the_moment() -> None:
    files = complete({}, None)
    longer = {**files, "gap_codes.csv": files["gap_codes.csv"] + "97,試行,trial\n"}
    laws = [Law.load(), read_version(1, longer, None).law]
    kept: Any = LawInForce(lambda: laws[0])
    assert "97" not in kept.gap_codes
    del laws[0]
    assert "97" in kept.gap_codes
