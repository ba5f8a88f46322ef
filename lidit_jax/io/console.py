"""Text for people who copy from it: no path, number or command is ever broken by a line's end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement

if TYPE_CHECKING:
    from rich.table import Table

_UNLIMITED = 100_000
"""Columns of an output without a screen, and those in which a table is measured."""


class NoWrapConsole(Console):
    """Lines are left to the terminal to wrap, and tables wrap between words only.

    Where the output is no terminal (a file, a pipe, the log of a cluster) nothing is wrapped,
    whatever COLUMNS says. Text is printed as it is: rich would take `[run]` of a path for markup
    and `:star:` for a picture. Styles come from `rich.text.Text`.
    """

    def __init__(self, **options: Any):
        """Takes what `rich.console.Console` takes."""
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        if not self.is_terminal:
            self.width = _UNLIMITED

    def say(self, text: str) -> None:
        """Prints a line, of whatever length; a terminal gives it back whole when it is copied."""
        self.print(text, soft_wrap=True)

    def show(self, table: Table) -> None:
        """Prints a table, sooner wider than the terminal than with a broken word."""
        self._fit(table)
        with self.capture() as capture:
            self.print(table, crop=False)
        # The padding of a long last column would be empty lines on a narrow screen.
        lines = [line.rstrip() for line in capture.get().splitlines()]
        self.file.write("\n".join([*lines, ""]))

    def _fit(self, table: Table) -> None:
        """Takes from the widest columns what is over; rich's own way breaks words."""
        unlimited = self.options.update_width(_UNLIMITED)
        whole = Measurement.get(self, unlimited, table).maximum
        ranges = []
        for column in table.columns:
            cells = [column.header, *column.cells] if table.show_header else [*column.cells]
            measured = [Measurement.get(self, unlimited, cell) for cell in cells]
            least = max((cell.minimum for cell in measured), default=0)
            ranges.append((least, max((cell.maximum for cell in measured), default=0)))
        widths = [most for _, most in ranges]
        for _ in range(whole - self.width):
            wide = [i for i, (least, _) in enumerate(ranges) if widths[i] > least]
            if not wide:
                break
            widths[max(wide, key=widths.__getitem__)] -= 1
        for column, width in zip(table.columns, widths, strict=True):
            column.width = width
        table.width = whole - sum(most for _, most in ranges) + sum(widths)
