"""How long provision records (情報提供等記録) are kept: seven years (番号法施行令30条), then they are deleted.

Pure. By whole months of Japan: a month's records go once every one of them is older than seven years. What the
database's own clock would keep is kept whatever is asked for (SQL 0076), and the log keeps its leaves for ever.
"""

import datetime as dt
from typing import Final

KEPT_YEARS: Final = 7


def kept_from(today: dt.date) -> dt.date:
    """Return the first day of the oldest month whose records are kept on a day in Japan."""
    return today.replace(year=today.year - KEPT_YEARS, day=1)
