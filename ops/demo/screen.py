"""What the person at the terminal sees: steps, progress bars, tables, and how to go on.

Everything goes to one console: standard error when a program reads standard output (``--json``), else standard output.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Advance = Callable[[int], None]


class Screen:
    """Writes for a person."""

    def __init__(self, *, for_program: bool) -> None:
        """``for_program``: leave standard output to the program that reads it."""
        self.console = Console(stderr=for_program, highlight=False)
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the screen was made."""
        return time.monotonic() - self._started

    def title(self, text: str) -> None:
        """Begin a part."""
        self.console.print(f"\n[bold]{text}[/]")

    def say(self, text: str) -> None:
        """Write a line as it is; long ones are not broken, so that they can be copied."""
        self.console.print(text, soft_wrap=True, markup=False)

    def tell(self, text: str) -> None:
        """Write a sentence for reading, broken between words where the terminal ends."""
        self.console.print(text, markup=False)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show that something is going on, and how long it took."""
        begun = time.monotonic()
        with self.console.status(f"{text} …"):
            yield
        self.console.print(f"  [green]✓[/] {text} [dim]({time.monotonic() - begun:.1f} s)[/]")

    @contextmanager
    def bar(self, text: str, total: int) -> Iterator[Advance]:
        """Show how much of ``total`` is done; call what is given with each further number of them."""
        columns = (TextColumn("  {task.description:<34}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(text, total=total)
            yield lambda number: progress.advance(task, number)

    def rows(self, rows: Sequence[Sequence[str]]) -> None:
        """Show lines in columns; nothing is cut off or broken, so that it can be copied."""
        widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True))
            self.say(f"  {'  '.join(cells).rstrip()}")

    def counts(self, title: str, rows: Mapping[str, tuple[int, str]]) -> None:
        """Show a table of numbers with what each means."""
        table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_column(style="dim")
        for name, (number, meaning) in rows.items():
            table.add_row(name, f"{number:,}", meaning)
        self.console.print(table)
