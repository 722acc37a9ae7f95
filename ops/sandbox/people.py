"""Synthetic residents for the sandbox: the same seed gives the same people, in whatever order they are asked for.

Numbers have valid check digits and come from the synthetic range of ``chukan.tenants.numbers``, one person one number
in a seed's whole nation, so that no real number is made by chance (TST-04). Names are paired in kanji and kana and hold
rare kanji on purpose (compatibility ideographs, characters outside the BMP, variation selectors): whatever normalises
stored text fails on them. Members of a household share family name, number and address.

These people must never be loaded into a real site.
"""

import hashlib
from collections.abc import Iterator
from datetime import date
from functools import cache
from typing import Final

from chukan.ops.sandbox.person import Draws, Person
from chukan.ops.sandbox.person_values import values_for
from chukan.platform.law import Layout, Value
from chukan.tenants import bodies
from chukan.tenants.numbers import SYNTHETIC_RANGE, synthetic_individual_number, synthetic_resident_code

__all__ = ["PEOPLE_PER_BODY_MAX", "Person", "addressee_number", "copy_values", "generate"]

PEOPLE_PER_BODY_MAX: Final = 55_000
"""A body's share of the synthetic range (1,788 shares)."""
_SCATTER: Final = 7919
_SCATTER_ADDRESSEE: Final = 31_415_923
_ADDRESSEE_DIGITS: Final = 15
_PARENTS_FROM = 3
"""Households of so many have children."""

_FAMILIES: Final = (
    ("佐藤", "サトウ"), ("鈴木", "スズキ"), ("高橋", "タカハシ"), ("田中", "タナカ"), ("伊藤", "イトウ"),
    ("山本", "ヤマモト"), ("中村", "ナカムラ"), ("小林", "コバヤシ"), ("加藤", "カトウ"), ("吉田", "ヨシダ"),
    ("山田", "ヤマダ"), ("佐々木", "ササキ"), ("松本", "マツモト"), ("井上", "イノウエ"), ("木村", "キムラ"),
    ("清水", "シミズ"), ("長谷川", "ハセガワ"), ("一ノ瀬", "イチノセ"), ("与那嶺", "ヨナミネ"), ("比嘉", "ヒガ"),
)  # fmt: skip
_RARE_FAMILIES: Final = (
    ("\u9ad9橋", "タカハシ"),  # 髙: the "ladder" form, in CP932 but not in JIS X 0208
    ("山\ufa11", "ヤマサキ"),  # 﨑: a compatibility ideograph that normalisation leaves alone
    ("\ufa19谷", "カミヤ"),  # 神: a compatibility ideograph that normalisation replaces
    ("\U00020bb7田", "ヨシダ"),  # 𠮷: outside the BMP
    ("\u8fbb\U000e0100", "ツジ"),  # 辻 with a variation selector
    ("渡\u908a", "ワタナベ"),
    ("渡\u9089", "ワタナベ"),
    ("\u9f4b藤", "サイトウ"),
    ("\u6ff5田", "ハマダ"),  # 濵: in CP932 but not in JIS X 0208
    ("\U0002363a本", "ハシモト"),  # 𣘺: outside the BMP
    ("\ufa1b原", "フクハラ"),  # 福 as a compatibility ideograph
    ("\u845b\U000e0101城", "カツラギ"),  # 葛 with another variation selector
)
_GIVEN_MALE: Final = (
    ("太郎", "タロウ"), ("健一", "ケンイチ"), ("翔太", "ショウタ"), ("大輔", "ダイスケ"), ("直樹", "ナオキ"),
    ("陽翔", "ハルト"), ("蓮", "レン"), ("\ufa1a雄", "ヨシオ"), ("\u5fb7\u58eb", "トクシ"), ("勇\u6c17", "ユウキ"),
)  # fmt: skip
_GIVEN_FEMALE: Final = (
    ("花子", "ハナコ"), ("陽子", "ヨウコ"), ("美咲", "ミサキ"), ("さくら", "サクラ"), ("結衣", "ユイ"),
    ("葵", "アオイ"), ("凜", "リン"), ("\u7460\u7483", "ルリ"), ("幸\U000e0100恵", "ユキエ"), ("久美子", "クミコ"),
)  # fmt: skip
_TOWNS: Final = ("中央", "本町", "栄町", "緑町", "旭町", "大手町", "東", "西", "南が丘", "字上野")
_RARE_ONE_IN: Final = 8


@cache
def _places() -> dict[str, int]:
    return {body.code: place for place, body in enumerate(bodies.bodies())}


@cache
def _municipalities(prefecture: str) -> tuple[str, ...]:
    kinds = (bodies.BodyKind.PREFECTURE,)
    return tuple(body.name for body in bodies.bodies() if body.prefecture == prefecture and body.kind not in kinds)


def generate(body_code: str, count: int, seed: int) -> Iterator[Person]:
    """Yield ``count`` residents of a body (6-digit code); a smaller count yields the beginning of a larger one.

    Raises:
        ValueError: no such body, or more people than a body's share of the synthetic range.
    """
    body = bodies.body(body_code)
    if body is None or not 0 <= count <= PEOPLE_PER_BODY_MAX:
        raise ValueError(f"expected the code of a body and at most {PEOPLE_PER_BODY_MAX} people")
    made = number = 0
    while made < count:
        for person in _household(body, number, made, seed):
            if made == count:
                break
            yield person
            made += 1
        number += 1


def _household(body: bodies.Body, number: int, first: int, seed: int) -> Iterator[Person]:
    """Yield the members of one household: head, then perhaps a spouse and children."""
    draws = Draws(seed, body.code, "household", number)
    size = draws.choose((1, 1, 1, 2, 2, 3, 4, 5))
    family, family_kana = draws.choose(_RARE_FAMILIES if draws.one_in(_RARE_ONE_IN) else _FAMILIES)
    town = draws.choose(_municipalities(body.prefecture)) if body.name == body.prefecture else body.name
    street = f"{draws.choose(_TOWNS)}{draws.between(1, 9)}丁目{draws.between(1, 40)}番{draws.between(1, 30)}号"
    since = draws.day(date(2005, 4, 1), date(2025, 12, 31))
    head_name = head_sex = ""
    for member in range(min(size, PEOPLE_PER_BODY_MAX - first)):
        own = Draws(seed, body.code, "person", number, member)
        sex, relation, birth = _member(member, size, head_sex, own)
        given, given_kana = own.choose(_GIVEN_MALE if sex == "1" else _GIVEN_FEMALE)
        head_name, head_sex = head_name or f"{family}\u3000{given}", head_sex or sex
        serial = _serial(body.code, first + member, seed)
        yield Person(
            serial=serial,
            body_code=body.code,
            individual_number=synthetic_individual_number(serial),
            resident_code=synthetic_resident_code(serial),
            family=family,
            given=given,
            family_kana=family_kana,
            given_kana=given_kana,
            birth_date=birth,
            sex=sex,
            household=f"{number + 1:0{_ADDRESSEE_DIGITS}d}",
            household_size=size,
            relation=relation,
            head_name=head_name,
            address=f"{body.prefecture}{town}{street}",
            resident_since=max(since, birth),
        )


def _member(member: int, size: int, head_sex: str, draws: Draws) -> tuple[str, str, date]:
    """Return sex, relation and birth date of a household's first (head), second (spouse) or later (child) member."""
    sex = str(draws.between(1, 2))
    earliest, latest = (
        (date(1960, 1, 1), date(1985, 12, 31)) if size >= _PARENTS_FROM else (date(1930, 1, 1), date(1998, 12, 31))
    )
    if member == 0:
        return sex, "世帯主", draws.day(earliest, latest)
    if member == 1:
        return ("2", "妻", draws.day(earliest, latest)) if head_sex == "1" else ("1", "夫", draws.day(earliest, latest))
    return sex, "子", draws.day(date(2005, 1, 1), date(2025, 12, 31))


def _serial(body_code: str, nth: int, seed: int) -> int:
    start = Draws(seed, "serials").below(PEOPLE_PER_BODY_MAX)
    return _places()[body_code] * PEOPLE_PER_BODY_MAX + (nth * _SCATTER + start) % PEOPLE_PER_BODY_MAX


@cache
def _shift(agency_code: str) -> int:
    return int.from_bytes(hashlib.blake2b(agency_code.encode(), digest_size=8).digest(), "big")


def addressee_number(person: Person, agency_code: str) -> str:
    """Return the agency's own number for a person (団体内統合宛名番号): 15 digits, zero padded.

    One to one within an agency and different at another; 15 digits can be taken for no individual number.
    """
    number = (person.serial * _SCATTER_ADDRESSEE + _shift(agency_code)) % SYNTHETIC_RANGE
    return f"{number:0{_ADDRESSEE_DIGITS}d}"


def copy_values(person: Person, kind: str, layout: Layout, year: int, seed: int) -> dict[str, Value]:
    """Return plausible items of a copy of one kind about a person, as the layout wants them; some are gaps.

    ``year`` is the year that the copy is about (課税年度 for tax).

    Raises:
        ValueError: the layout is not one of the kind.
        KeyError: nobody has written values for the kind.
    """
    if layout.kind != kind:
        raise ValueError("the layout belongs to another kind")
    return values_for(person, layout, year, Draws(seed, person.body_code, person.serial, kind, year))
