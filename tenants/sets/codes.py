"""Set functions of linkage codes (符号): opening acquisitions, numbers, codes that arrive, and finding them."""

from collections.abc import Sequence

from chukan.errors import Problem
from chukan.tenants.rows import CodeNumber, CodeOpen, CodePut, CodeRow
from chukan.tenants.sets.common import Record, SetCaller, columns, in_order, same_length
from chukan.tenants.states import LinkStatus


class CodeSets(SetCaller):
    """Set functions that read or write agencies' ``codes``."""

    async def open_codes(self, rows: Sequence[CodeOpen]) -> list[CodeRow]:
        """Open acquisitions, or find what is there: a person never has two (SYM-02)."""
        if not rows:
            return []
        found = await self._call("open_codes", *columns(rows, "agency", "generation", "person", "addressee", "request"))
        return [_present(row) for row in in_order(found, len(rows))]

    async def set_numbers(self, rows: Sequence[CodeNumber]) -> list[CodeRow]:
        """Keep the acquisition numbers (取得番号) of open acquisitions; the first stays. ``Problem`` not_found."""
        if not rows:
            return []
        found = await self._call(
            "set_numbers", *columns(rows, "agency", "person", "request", "number_digest", "number")
        )
        return [_present(row) for row in in_order(found, len(rows))]

    async def put_codes(self, rows: Sequence[CodePut]) -> list[str]:
        """Store codes that arrived, and delete their acquisition numbers in the same commit.

        Returns ``applied``; ``repeat`` (the message was taken before); ``unknown`` (no open acquisition has this
        number: nothing is stored); ``duplicate`` (the code stands under another addressee number of the agency).
        """
        if not rows:
            return []
        given = columns(rows, "agency", "inbox", "number_digest", "code_digest", "code")
        return same_length(await self._words("put_codes", *given), rows)

    async def find_codes(self, pairs: Sequence[tuple[int, bytes]]) -> list[CodeRow | None]:
        """Return the links of persons named by (agency, addressee digest), None where there is none."""
        if not pairs:
            return []
        rows = await self._call("find_codes", [agency for agency, _ in pairs], [person for _, person in pairs])
        return [None if row is None else _present(row) for row in in_order(rows, len(pairs))]


def _present(row: Record | None) -> CodeRow:
    if row is None:
        raise Problem("not_found")
    return CodeRow(
        person=row["person"],
        status=LinkStatus(row["status"]),
        version=row["version"],
        request=row["request"],
        number=row["number"],
        code=row["code"],
        code_digest=row["code_digest"],
    )
