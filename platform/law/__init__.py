"""The law as data with dates: who may ask whom for what, which items, in which layout (照会許可用照合リスト).

``Law.load()`` reads the package's own files once; everything after that is pure and fast enough to run per line.

- ``Law.decide`` judges a query by the list in force on a day: yes, no or unknown, with the reason and the steps;
- ``Law.allowed_items`` names the items that a procedure may receive of a kind;
- ``Layout`` and ``validate_copy`` know the items of a kind and what a value must look like;
- ``Law.validate_condition`` knows by what a kind may be asked (year, period, day).

Invariants: where no list is held for a day, or words of the law are not resolved to agencies, the answer is
``unknown``, never yes or no (DESIGN §3, invariant 12), and only a yes opens anything (4). Missing is never zero (9).
Codes of kinds, affairs and procedures are stable; the numbers of a list's items are not, and nothing is keyed by them.
"""

from chukan.platform.law.decision import Decision, Step, Verdict
from chukan.platform.law.layouts import Item, ItemType, Layout, Value, select_items, validate_copy
from chukan.platform.law.matching import Law
from chukan.platform.law.tables import Affair, Kind, ListInForce, Procedure
from chukan.platform.wire.agency import Gap

__all__ = [
    "Affair",
    "Decision",
    "Gap",
    "Item",
    "ItemType",
    "Kind",
    "Law",
    "Layout",
    "ListInForce",
    "Procedure",
    "Step",
    "Value",
    "Verdict",
    "select_items",
    "validate_copy",
]
