"""The picture of a site for a terminal of 80 columns: a table of nodes, a line each for etcd and the exchanges.

Pure: it draws what it is given, and says below it what does not stand as the site file wants it.
"""

from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from chukan.ops.centres.picture import CellPicture, NodePicture, Picture

_KIB: Final = 1024
_UNITS: Final = ("B", "KiB", "MiB", "GiB")


def draw(picture: Picture, at: str = "") -> RenderableType:
    """Return the picture for a terminal of 80 columns."""
    strict = "strict" if picture.strict else "not strict"
    title = f"\n[bold]{escape(picture.site)}[/] {picture.topology}, {strict} [dim]{at}[/]"
    lines = (_line("etcd", _etcd(picture)), *_exchanges(picture), *_gateways(picture))
    return Group(title, _nodes(picture), *lines, *_complaints(picture))


def _nodes(picture: Picture) -> Table:
    table = Table("cell", "node", "centre", "role", "timeline", "lag", "state", box=None, pad_edge=False)
    for cell in picture.cells:
        for node in cell.nodes:
            away = node.name == cell.leader and node.centre != cell.home
            table.add_row(
                cell.name if node is cell.nodes[0] else "",
                node.name,
                node.centre,
                _role(cell, node) + (" [yellow](away from home)[/]" if away else ""),
                "" if node.timeline is None else str(node.timeline),
                "" if node.lag_bytes is None else _size(node.lag_bytes),
                "streaming" if node.streaming else node.state,
            )
    return table


def _role(cell: CellPicture, node: NodePicture) -> str:
    if node.name == cell.leader:
        return "[bold green]primary[/]"
    colour = {"sync": "green", "replica": "yellow"}.get(node.role, "red")
    return f"[{colour}]{node.role}[/]"


def _size(count: float) -> str:
    unit = 0
    while count >= _KIB and unit < len(_UNITS) - 1:
        count /= _KIB
        unit += 1
    return f"{count:.0f} {_UNITS[unit]}"


def _etcd(picture: Picture) -> str:
    return "   ".join(f"{name} {_mark(good=good)}" for name, good in picture.etcd.items())


def _mark(*, good: bool) -> str:
    return "[green]✓[/]" if good else "[red]✗[/]"


def _exchanges(picture: Picture) -> Iterator[str]:
    for exchange in picture.exchanges:
        cells = "  ".join(f"{cell} {_mark(good=good)}" for cell, good in exchange.cells.items())
        state = "ready" if exchange.ready else "[red]not ready[/]" if exchange.answers else "[red]silent[/]"
        yield _line(exchange.name, f"{state}   {cells}   [yellow]{escape(' '.join(exchange.warnings))}[/]")


def _gateways(picture: Picture) -> Iterator[str]:
    for gateway in picture.links:
        if not gateway.answers:
            yield _line(gateway.name, "[red]silent[/]")
            continue
        colour = "green" if gateway.whole else "yellow"
        drift = f"[yellow]{gateway.drift} differences found[/]" if gateway.drift else "no difference found"
        drain = "   [yellow]drained[/]" if gateway.draining else ""
        yield _line(gateway.name, f"[{colour}]{gateway.up} of {gateway.links} links up[/]   {drift}{drain}")


def _complaints(picture: Picture) -> Iterator[str]:
    found = picture.complaints()
    if not found:
        yield "[green]Everything stands as the site file wants it.[/]"
    for complaint in found:
        yield f"[red]✗[/] {escape(complaint)}"


def _line(name: str, text: str) -> str:
    return f"[dim]{name:<15}[/] {text}"
