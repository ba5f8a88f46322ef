"""Console output without line breaks inside paths, numbers or commands, so it can be copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement

if TYPE_CHECKING:
    from rich.table import Table

_UNLIMITED = 100_000
"""Width in columns of output that is not a terminal, and for measuring tables."""


class NoWrapConsole(Console):
    """Console that leaves line wrapping to the terminal and wraps tables between words only.

    If the output is not a terminal (a file, a pipe, a cluster's log) nothing is wrapped, whatever
    the value of COLUMNS. Text is printed literally: rich would parse `[run]` in a path as markup
    and `:star:` as an emoji. Styles come from `rich.text.Text`.
    """

    def __init__(self, **options: Any):
        """Accept the options of `rich.console.Console`."""
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        if not self.is_terminal:
            self.width = _UNLIMITED

    def say(self, text: str) -> None:
        """Print a line of any length without breaking it, so that it can be copied whole."""
        self.print(text, soft_wrap=True)

    def show(self, table: Table) -> None:
        """Print a table, wider than the terminal rather than with broken words."""
        self._fit(table)
        with self.capture() as capture:
            self.print(table, crop=False)
        # Padding of a wide last column would wrap to empty lines on a narrow terminal.
        lines = [line.rstrip() for line in capture.get().splitlines()]
        self.file.write("\n".join([*lines, ""]))

    def _fit(self, table: Table) -> None:
        """Shrink the widest columns to the terminal width; rich's own method breaks words."""
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
