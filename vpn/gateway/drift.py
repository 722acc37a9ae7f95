"""Which of all differences is drift, and what of it goes into the audit: pure.

A difference is drift where a link had been given what it shall have, in this very form (``mark``), and has it no
longer; or where a peer is nobody's. What is new, changed, ended or on a back end that was just started is no drift.

Invariant: everything is counted; what is told is bounded: one row for the same link and kind in ``AGAIN_S``, at most
``PASS_MAX`` rows a pass and ``HOUR_MAX`` an hour, so that nobody can fill the audit by shaking a gateway.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from chukan.clock import Clock
from chukan.vpn.model import Drift

AGAIN_S: Final = 600.0
PASS_MAX: Final = 200
HOUR_MAX: Final = 2_000
HOUR_S: Final = 3600.0
DRIFT_KINDS: Final = (
    *("missing", "rogue", "stolen", "psk", "allowed", "firewall", "let_in", "shut_out"),
    *("desired_went_back", "sealed", "doubled"),
)
"""Counted from the start: an increase from nothing would not be seen."""


class Found(NamedTuple):
    """One row: the link (None for what is nobody's), what differs, and whether it was repaired."""

    link: str | None
    kind: str
    repaired: bool


def drifted(
    differences: Iterable[Drift], left: Iterable[Drift], before: Mapping[str, str], now: Mapping[str, str]
) -> list[Found]:
    """Return what of the differences is drift.

    Args:
        differences: all that differed.
        left: what differed still afterwards.
        before: the marks of what each link was given by an earlier pass.
        now: the marks of what each link is given by this one.
    """
    remains = {(each.link, each.kind) for each in left}
    return [
        Found(each.link, each.kind, (each.link, each.kind) not in remains)
        for each in differences
        if each.link is None or (each.link in before and before[each.link] == now.get(each.link))
    ]


class Telling:
    """Says what of the drift is told now; kept by the controller over its passes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[tuple[str | None, str, bool], float] = {}
        self._hour: list[float] = []

    def choose(self, found: Iterable[Found]) -> list[Found]:
        """Return the rows to tell; what is left out is told later if it is still so."""
        now = self._clock.monotonic()
        self._told = {key: at for key, at in self._told.items() if now - at < AGAIN_S}
        self._hour = [at for at in self._hour if now - at < HOUR_S]
        chosen: list[Found] = []
        for each in found:
            if len(chosen) >= PASS_MAX or len(self._hour) >= HOUR_MAX:
                break
            if each not in self._told:
                self._told[each] = now
                self._hour.append(now)
                chosen.append(each)
        return chosen
