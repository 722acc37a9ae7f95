"""The picture of a drill as inline SVG: outage per group of agencies, who led and who was there, and what was done.

Time runs from left to right. Nothing is loaded from anywhere, and no script is needed to read it.
"""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from chukan.ops.drills.report import Report
from chukan.ops.drills.watch import Change

WIDTH: Final = 1180
LEFT: Final = 190
ROW: Final = 24
BAR: Final = 16
TOP: Final = 16
_TICKS: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_TICKS_MAX: Final = 12
_LEVELS: Final = 3
_COLOURS: Final = {
    "primary": "#1a6b3c",
    "sync": "#7bb58f",
    "replica": "#c9dccf",
    "starting": "#e8d58a",
    "gone": "#e3e3e3",
    "up": "#9db8d6",
}
ROLES_JA: Final = {
    "primary": "主系",
    "sync": "同期待機系",
    "replica": "待機系",
    "starting": "起動中",
    "gone": "応答なし",
    "up": "稼働",
}


class Picture:
    """Draws one report."""

    def __init__(self, report: Report) -> None:
        self._report = report
        times = [report.load_to, *(event.at for event in report.events), *(change.at for change in report.changes)]
        self._end = max([*times, 1.0])
        self._y = TOP
        self._parts: list[str] = []

    def svg(self) -> str:
        """Return the drawing."""
        self._events()
        self._heading("利用者から見た停止時間 Outage seen by clients")
        for group in self._report.verdict.outage_s:
            self._group(group)
        self._heading("役割の推移 Roles over time")
        for name, of in self._by_name():
            self._roles(name, of)
        height = self._y + 40
        marks = "".join(self._event_lines(height))
        grid = "".join(self._grid(height))
        return (
            f'<svg viewBox="0 0 {WIDTH} {height}" xmlns="http://www.w3.org/2000/svg" role="img" '
            f'aria-label="Timeline of the drill" font-family="sans-serif" font-size="12">{grid}{marks}'
            f"{''.join(self._parts)}</svg>"
        )

    def _x(self, at: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 12) * max(0.0, min(at, self._end)) / self._end, 1)

    def _heading(self, text: str) -> None:
        self._y += 12
        self._parts.append(
            f'<rect x="0" y="{self._y - 2}" width="{WIDTH}" height="{ROW - 4}" fill="#ffffff"/>'
            f'<text x="8" y="{self._y + 12}" font-weight="bold">{escape(text)}</text>'
        )
        self._y += ROW

    def _label(self, text: str, value: str = "") -> None:
        self._parts.append(f'<text x="8" y="{self._y + 13}">{escape(text)}</text>')
        if value:
            self._parts.append(f'<text x="{LEFT - 8}" y="{self._y + 13}" text-anchor="end">{escape(value)}</text>')

    def _bar(self, begun: float, ended: float, colour: str, title: str) -> None:
        x = self._x(begun)
        width = max(1.0, round(self._x(ended) - x, 1))
        self._parts.append(
            f'<rect x="{x}" y="{self._y + 2}" width="{width}" height="{BAR}" fill="{colour}">'
            f"<title>{escape(title)}</title></rect>"
        )

    def _group(self, group: str) -> None:
        report = self._report
        limit = next((bound.limit_s for bound in report.bounds() if bound.what == f"outage {group}"), None)
        self._label(group, f"{report.verdict.outage_s[group]:.1f} s")
        self._bar(report.load_from, report.load_to, "#d5e8d8", "acknowledged")
        for stretch in report.stretches:
            if stretch.group == group:
                seconds = stretch.ended - stretch.begun
                late = limit is not None and seconds > limit
                self._bar(stretch.begun, stretch.ended, "#b3261e" if late else "#e39b4e", f"{seconds:.1f} s")
        self._y += ROW

    def _by_name(self) -> list[tuple[str, list[Change]]]:
        found: dict[str, list[Change]] = {}
        for change in self._report.changes:
            found.setdefault(change.name, []).append(change)
        # Cells first, exchanges and voters after them.
        return sorted(found.items(), key=lambda one: (not one[1][0].cell, one[1][0].cell, one[0]))

    def _roles(self, name: str, changes: Sequence[Change]) -> None:
        self._label(f"{name} ({changes[0].cell})" if changes[0].cell else name)
        ends = [change.at for change in changes[1:]] + [self._end]
        for change, ended in zip(changes, ends, strict=True):
            timeline = f", timeline {change.timeline}" if change.timeline else ""
            title = f"{change.state}{timeline}: {change.at:.1f}-{ended:.1f} s"
            self._bar(change.at, ended, _COLOURS.get(change.state, "#cccccc"), title)
        self._y += ROW

    def _events(self) -> None:
        self._y += ROW + BAR

    def _event_lines(self, height: int) -> Iterator[str]:
        for number, event in enumerate(self._report.events, start=1):
            x = self._x(event.at)
            colour = "#b3261e" if event.kind in {"trouble", "word"} else "#444444"
            yield (
                f'<line x1="{x}" y1="{TOP + 26}" x2="{x}" y2="{height - 28}" stroke="{colour}" stroke-width="0.7" '
                f'stroke-dasharray="3 3"/><text x="{x}" y="{TOP + 11 * (number % _LEVELS)}" text-anchor="middle" '
                f'font-size="10" fill="{colour}">{number}<title>{escape(event.en)}</title></text>'
            )

    def _grid(self, height: int) -> Iterator[str]:
        step = next((tick for tick in _TICKS if self._end / tick <= _TICKS_MAX), _TICKS[-1])
        for n in range(int(self._end // step) + 1):
            x = self._x(n * step)
            yield (
                f'<line x1="{x}" y1="{TOP + 30}" x2="{x}" y2="{height - 24}" stroke="#eeeeee"/>'
                f'<text x="{x}" y="{height - 10}" text-anchor="middle" fill="#666666">{n * step} s</text>'
            )


def legend() -> str:
    """Return what the colours mean, as HTML."""
    swatches = [*((_COLOURS[role], f"{ja} {role}") for role, ja in ROLES_JA.items())]
    swatches += [("#e39b4e", "受付なし(許容内) no acknowledgement, within its bound"),
                 ("#b3261e", "受付なし(許容超過) beyond its bound")]  # fmt: skip
    return " ".join(
        f'<span class="key"><i style="background:{colour}"></i>{escape(text)}</span>' for colour, text in swatches
    )
