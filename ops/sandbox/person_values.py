"""Plausible values of a synthetic resident for each kind, by the Japanese name of the item.

They hang together (a tax follows from an income, a benefit from an age), but prove nothing about real taxes: rates
and deductions are coarse on purpose. What a person does not have is a gap with a reason code, never a zero or an empty
text.
"""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Final

from chukan.ops.sandbox.person import Draws, Person
from chukan.platform.law import Gap, ItemType, Layout, Value

_UNDECLARED = Gap(gap="01")
_NO_SUCH_FACT = Gap(gap="02")
_ADULT, _RETIRED, _CARE = 20, 65, 75
_BASIC_DEDUCTION, _EXEMPT_UP_TO = 430_000, 450_000

RESIDENT: Final = "TM00000000000001"
TAX: Final = "TM00000000000002"
ACCOUNT: Final = "TM00000000000089"
DISABILITY: Final = "TMX0000000000011"
PUBLIC_ASSISTANCE: Final = "TMX0000000000012"
CHILD_ALLOWANCE: Final = "TMX0000000000013"
HEALTH_INSURANCE: Final = "TMX0000000000014"
CARE_INSURANCE: Final = "TMX0000000000015"


def _resident(person: Person, year: int, draws: Draws) -> dict[str, Value]:
    del year
    return {
        "氏名": person.name,
        "氏名（フリガナ）": person.name_kana,
        "生年月日": person.birth_date.isoformat(),
        "性別": person.sex,
        "住所": person.address,
        "住所コード（市区町村）": person.body_code,
        "世帯主との続柄": person.relation,
        "世帯主氏名": person.head_name,
        "世帯番号": person.household,
        "世帯員数": str(person.household_size),
        "住民となった日": person.resident_since.isoformat(),
        "住所を定めた日": person.resident_since.isoformat(),
        "異動事由": draws.choose(("01", "02", "03")),
        "外国人住民の区分": "0",
    }


def _tax(person: Person, year: int, draws: Draws) -> dict[str, Value]:
    """Return the tax items of the year for which income of the year before is taxed."""
    head: dict[str, Value] = {"課税年度": str(year), "備考": _NO_SUCH_FACT}
    age = person.age_on(date(year, 1, 1))
    if age >= _ADULT and draws.one_in(20):
        return head | {"未申告区分": "1", "非課税区分": _UNDECLARED, "": _UNDECLARED}
    salary, pension = _incomes(age, draws)
    earned, old_age = max(0, salary * 7 // 10 - 80_000), max(0, pension - 1_100_000)
    total = earned + old_age
    deductions = _deductions(total, draws) if total else {}
    deducted = sum(deductions.values()) + _BASIC_DEDUCTION
    base = max(0, total - deducted) // 1000 * 1000
    exempt = total <= _EXEMPT_UP_TO
    per_capita, city_share, prefecture_share = (0, 0, 0) if exempt else (1, base * 6 // 100, base * 4 // 100)
    amounts = deductions | {
        "総所得金額等": total,
        "合計所得金額": total,
        "給与収入": salary,
        "給与所得": earned,
        "公的年金等収入": pension,
        "雑所得（公的年金等）": old_age,
        "基礎控除額": _BASIC_DEDUCTION,
        "所得控除額計": deducted,
        "課税標準額": base,
        "市町村民税所得割額（定額減税前）": city_share // 100 * 100,
        "市町村民税所得割額": city_share // 100 * 100,
        "市町村民税均等割額": 3000 * per_capita,
        "都道府県民税所得割額（定額減税前）": prefecture_share // 100 * 100,
        "都道府県民税所得割額": prefecture_share // 100 * 100,
        "都道府県民税均等割額": 1000 * per_capita,
        "森林環境税額": 1000 * per_capita,
    }
    dependants = dict.fromkeys(("特定扶養親族数", "老人扶養親族数", "障害者控除対象者数"), "0")
    return (
        head
        | {name: str(amount) for name, amount in amounts.items()}
        | dependants
        | {
            "非課税区分": "1" if exempt else "0",
            "未申告区分": "0",
            "控除対象配偶者の有無": str(int(not exempt and draws.one_in(3))),
            "一般扶養親族数": str(draws.below(3)),
            "16歳未満扶養親族数": str(draws.below(3)),
            "": "0",
        }
    )


def _incomes(age: int, draws: Draws) -> tuple[int, int]:
    if age < _ADULT:
        return 0, 0
    if age < _RETIRED:
        return draws.between(0, 9_000) * 1000, 0
    return draws.choose((0, 0, 1_200_000)), draws.between(500, 2_800) * 1000


def _deductions(total: int, draws: Draws) -> dict[str, int]:
    return {
        "社会保険料控除額": total * 14 // 100,
        "生命保険料控除額": draws.choose((0, 28_000, 70_000)),
        "地震保険料控除額": draws.choose((0, 0, 25_000)),
        "医療費控除額": draws.choose((0, 0, 0, 123_456)),
    }


def _disability(person: Person, year: int, draws: Draws) -> dict[str, Value]:
    issued = draws.day(date(year - 8, 4, 1), date(year - 1, 3, 31))
    kind = draws.choose(("1", "2", "3"))
    return {
        "手帳の種別": kind,
        "障害等級": draws.choose(("01", "02", "03", "04")),
        "手帳番号": f"T{person.serial % 10_000_000:07d}",
        "交付日": issued.isoformat(),
        "再認定日": (issued + timedelta(days=1826)).isoformat() if draws.one_in(2) else _NO_SUCH_FACT,
        "有効期限": (issued + timedelta(days=730)).isoformat() if kind == "3" else _NO_SUCH_FACT,
        "返還日": _NO_SUCH_FACT,
    }


def _public_assistance(person: Person, year: int, draws: Draws) -> dict[str, Value]:
    begun = draws.day(date(year - 6, 4, 1), date(year, 3, 31))
    ended = draws.one_in(4)
    aids = ("生活", "住宅", "教育", "介護", "医療", "出産", "生業", "葬祭")
    return {
        "保護の開始日": begun.isoformat(),
        "保護の停止日": _NO_SUCH_FACT,
        "保護の廃止日": (begun + timedelta(days=400)).isoformat() if ended else _NO_SUCH_FACT,
        **{f"{aid}扶助の有無": str(int(aid == "生活" or draws.one_in(3))) for aid in aids},
        "世帯員数": str(person.household_size),
    }


def _child_allowance(person: Person, year: int, draws: Draws) -> dict[str, Value]:
    del person
    children, infants = draws.between(1, 3), draws.below(2)
    monthly = 10_000 * children + 5_000 * infants
    return {
        "受給区分": "1",
        "支給開始年月日": draws.day(date(year - 10, 1, 1), date(year - 1, 12, 31)).isoformat(),
        "支給終了年月日": _NO_SUCH_FACT,
        "支給対象児童数": str(children),
        "3歳未満の児童数": str(infants),
        "第3子以降の児童数": str(int(children == 3)),  # noqa: PLR2004 (the third child)
        "手当月額": str(monthly),
        "直近の支払年月日": f"{year}-10-10",
        "直近の支払額": str(monthly * 2),
        "公務員区分": "0",
    }


def _health_insurance(person: Person, year: int, draws: Draws) -> dict[str, Value]:
    lost = draws.one_in(6)
    joined = max(person.birth_date, draws.day(date(year - 12, 4, 1), date(year - 1, 12, 31)))
    return {
        "保険者番号": f"00{person.body_code}",
        "被保険者記号・番号": f"{person.body_code[:2]}-{person.serial % 1_000_000:06d}",
        "枝番": f"{draws.between(1, 4):02d}",
        "資格取得日": joined.isoformat(),
        "資格取得事由": "01",
        "資格喪失日": (joined + timedelta(days=900)).isoformat() if lost else _NO_SUCH_FACT,
        "資格喪失事由": "02" if lost else _NO_SUCH_FACT,
        "世帯主区分": str(int(person.relation == "世帯主")),
        "負担割合": "2" if person.age_on(date(year, 4, 1)) >= _CARE else "3",
        "高額療養費の所得区分": draws.choose(("01", "02", "03", "04")),
        "限度額適用認定": str(draws.below(2)),
        "直近の給付額": str(draws.between(1, 900) * 100),
    }


def _care_insurance(person: Person, year: int, draws: Draws) -> dict[str, Value]:
    certified = draws.day(date(year - 1, 4, 1), date(year, 3, 31))
    return {
        "介護保険者番号": person.body_code,
        "被保険者番号": f"{person.serial % 10**9:010d}",
        "要介護状態区分": draws.choose(("12", "13", "21", "22", "23", "24", "25")),
        "認定日": certified.isoformat(),
        "認定有効期間の開始日": certified.isoformat(),
        "認定有効期間の終了日": (certified + timedelta(days=365)).isoformat(),
        "負担割合": draws.choose(("1", "1", "1", "2", "3")),
        "保険料段階": str(draws.between(1, 13)),
        "保険料額": str(draws.between(200, 1800) * 100),
        "資格取得日": (person.birth_date + timedelta(days=_RETIRED * 365 + 16)).isoformat(),
        "資格喪失日": _NO_SUCH_FACT,
    }


def _account(person: Person, year: int, draws: Draws) -> dict[str, Value]:
    return {
        "金融機関コード": f"9{draws.below(1000):03d}",
        "金融機関名": draws.choose(("検証銀行", "見本信用金庫", "架空農業協同組合")),
        "支店コード": f"{draws.below(1000):03d}",
        "支店名": draws.choose(("本店", "中央支店", "駅前支店")),
        "預金種目": "1",
        "口座番号": f"{draws.below(10**7):07d}",
        "口座名義人（カナ）": person.name_kana,
        "登録日": draws.day(date(2022, 3, 28), date(max(year, 2023), 3, 31)).isoformat(),
        "抹消日": _NO_SUCH_FACT,
    }


_KINDS: Final[Mapping[str, Callable[[Person, int, Draws], dict[str, Value]]]] = {
    RESIDENT: _resident,
    TAX: _tax,
    ACCOUNT: _account,
    DISABILITY: _disability,
    PUBLIC_ASSISTANCE: _public_assistance,
    CHILD_ALLOWANCE: _child_allowance,
    HEALTH_INSURANCE: _health_insurance,
    CARE_INSURANCE: _care_insurance,
}


def values_for(person: Person, layout: Layout, year: int, draws: Draws) -> dict[str, Value]:
    """Return a value or a gap for every item of the layout.

    An item that the kind's table does not name gets what stands under the empty name where its type is a number or a
    flag, else the reason code for "no such fact".

    Raises:
        KeyError: nobody has written values for the kind.
    """
    made = _KINDS[layout.kind](person, year, draws)
    rest = made.get("", _NO_SUCH_FACT)
    numeric = (ItemType.AMOUNT, ItemType.COUNT, ItemType.FLAG)
    return {
        code: made.get(item.name_ja, rest if item.type in numeric else _NO_SUCH_FACT)
        for code, item in layout.items.items()
    }
