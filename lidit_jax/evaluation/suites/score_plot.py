"""Plot of suites' scores beside those of the paper's table 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

from lidit_jax.evaluation.suites.paper_table import COLUMNS, TABLE
from lidit_jax.evaluation.suites.score_report import Report, published_rows, subset_note

_COLORS = ("#9aa5b1", "#7fb2d8", "#b8860b", "#9bc53d", "#5f3dc4", "#666666", "#1b6ca8", "#c9a0dc")
_COLORS += ("#8d6e63", "#3a7d44")
"""Colors of the models of table 1, in its order."""
_OWN = "#c8553d"
_WIDTH = 0.7
"""Width of the markers of one column; the distance of columns is 1."""


def plot(reports: Sequence[Report], file: BinaryIO) -> None:
    """Write a PNG: the models of table 1 by column, and the own scores with their intervals.

    Args:
      reports: of one model, each of another suite.
      file: open for writing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    reports = sorted(reports, key=lambda report: [*COLUMNS].index(report["suite"]))
    widths = [len(COLUMNS[report["suite"]]) + 1 for report in reports]
    figure = Figure(figsize=(1.2 * sum(widths) + 3, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(reports), width_ratios=widths, squeeze=False)[0]
    handles: dict[str, Any] = {}
    for axis, report in zip(axes, reports, strict=True):
        handles |= _suite(axis, report)
    order = [name for name in (*TABLE, *handles) if name in handles]
    order = list(dict.fromkeys(order))
    figure.legend(
        [handles[name] for name in order], order, fontsize=8, frameon=False,
        loc="outside right upper",
    )  # fmt: skip
    figure.savefig(file, format="png", dpi=130)


def _suite(axis: Any, report: Report) -> dict[str, Any]:
    """Plot one suite; return the legend's handle of each model."""
    columns, own = COLUMNS[report["suite"]], report["table_1"]
    models, handles = published_rows(report["suite"]), {}
    step = _WIDTH / len(models)
    for place, (model, cells) in enumerate(models.items()):
        points = [(i, cells[c]) for i, c in enumerate(columns) if cells[c] is not None]
        (handles[model],) = axis.plot(
            [i - _WIDTH / 2 + place * step for i, _ in points],
            [value for _, value in points],
            linestyle="none",
            marker="D" if model.startswith("LI-DiT") else "o",
            markersize=5,
            color=_COLORS[[*TABLE].index(model)],
        )
    points = [(i + _WIDTH / 2, own[c]) for i, c in enumerate(columns) if c in own]
    low, high = (
        # Rounding may place the end of an interval without width on the other side of its mean.
        [max(sign * (row[end] - row["score"]), 0) for _, row in points]
        for sign, end in ((-1, "low"), (1, "high"))
    )
    handles[f"{report['model']}, 95% interval"] = axis.errorbar(
        [x for x, _ in points],
        [row["score"] for _, row in points],
        yerr=[low, high],
        fmt="s",
        color=_OWN,
        markersize=6,
        capsize=3,
    )
    note = subset_note(report)
    axis.set_title(f"{report['title']}{f': {note}' if note else ''}", fontsize=11)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_xlim(-0.6, len(columns) - 0.4)
    axis.set_ylim(0, 1.04 * report["out_of"])
    axis.grid(alpha=0.25, axis="y")
    return handles
