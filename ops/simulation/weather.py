"""What goes wrong, how often: drawn once for each seed, and nothing any more once the sky has cleared.

Each fate is drawn at its own moment from the world's one source, so that a seed replays exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple


class CellFate(NamedTuple):
    """What becomes of one call to a cell: seconds there and back, and the problem before or after the commit."""

    there_s: float
    back_s: float
    before: str | None
    after: str | None
    quick: bool


class WireFate(NamedTuple):
    """What becomes of one message on the network's wire."""

    there_s: float
    back_s: float
    lost: bool
    """It never arrives."""
    reply_lost: bool
    """It has its effect, and nobody learns of it."""
    twice_after_s: float | None
    """It arrives a second time so much later."""
    refused: bool
    """The list is refused for what is said to be one of its items."""


_PROBLEMS: Final = ("unavailable", "no_primary", "busy")
_FOUL: Final = {
    "cell_before": 0.06,
    "cell_after": 0.06,
    "slow": 0.2,
    "lost": 0.15,
    "reply_lost": 0.15,
    "twice": 0.15,
    "refused": 0.05,
    "replayed": 0.4,
    "hints_lost": 0.5,
    "locked": 0.05,
}
_FAIR: Final = dict.fromkeys(_FOUL, 0.0)
_AT_ONCE: Final = CellFate(0.0, 0.0, None, None, quick=True)


@dataclass
class Weather:
    """Rates between 0 and 1; ``clear`` ends all of them."""

    cell_before: float
    cell_after: float
    slow: float
    lost: float
    reply_lost: float
    twice: float
    refused: float
    replayed: float
    hints_lost: float
    locked: float
    clear: bool = field(default=False, kw_only=True)

    @classmethod
    def drawn(cls, draw: Random) -> Weather:
        """Draw a world's weather: one in four is fair, the others have some of everything."""
        worst = _FAIR if draw.random() < 0.25 else _FOUL  # noqa: PLR2004 - one in four
        rates: dict[str, Any] = {name: draw.choice((0.0, 0.3, 1.0)) * rate for name, rate in worst.items()}
        return cls(**rates)

    def cell(self, draw: Random) -> CellFate:
        """Draw the fate of a call to a cell."""
        if self.clear:
            return _AT_ONCE
        roll = draw.random()
        before = after = None
        back_s = 0.0
        if roll < self.cell_before:
            before = draw.choice(_PROBLEMS)
        elif roll < self.cell_before + self.cell_after:
            after = draw.choice(_PROBLEMS)
            back_s = draw.choice((0.01, 0.2, 2.0))
        elif roll < 0.4:  # noqa: PLR2004 - most calls are quick, or there would be no two at the same instant
            return _AT_ONCE
        there_s = draw.uniform(0.001, 0.02) + (draw.uniform(0.1, 1.5) if draw.random() < self.slow else 0.0)
        return CellFate(there_s, back_s or draw.uniform(0.001, 0.01), before, after, quick=False)

    def wire(self, draw: Random) -> WireFate:
        """Draw the fate of a message between exchange and network, in either direction."""
        there_s, back_s = draw.uniform(0.001, 0.05), draw.uniform(0.001, 0.05)
        if self.clear:
            return WireFate(there_s, back_s, lost=False, reply_lost=False, twice_after_s=None, refused=False)
        if draw.random() < self.slow:
            there_s += draw.uniform(0.1, 2.0)
        return WireFate(
            there_s,
            back_s,
            lost=draw.random() < self.lost,
            reply_lost=draw.random() < self.reply_lost,
            twice_after_s=draw.uniform(0.0, 1.0) if draw.random() < self.twice else None,
            refused=draw.random() < self.refused,
        )

    def hint_lost(self, draw: Random) -> bool:
        """Whether a hint gets lost."""
        return not self.clear and draw.random() < self.hints_lost

    def is_locked(self, draw: Random) -> bool:
        """Whether another transaction holds a row that is skipped then."""
        return not self.clear and draw.random() < self.locked

    def is_replayed(self, draw: Random) -> bool:
        """Whether somebody sends a used permit again, in a message of its own."""
        return not self.clear and draw.random() < self.replayed
