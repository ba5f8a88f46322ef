"""Plot of a sampler comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

from lidit_jax.evaluation.sampler_report import (
    Row,
    caching,
    fewer_steps,
    recommended,
    threshold,
)

_COLORS = ("#1b6ca8", "#7fb2d8", "#c8553d", "#3a7d44", "#9bc53d", "#5f3dc4", "#b8860b", "#666666")


def plot(rows: Sequence[Row], usual: Row, file: BinaryIO) -> None:
    """Write a PNG: score by evaluations, and step caching versus fewer steps by time per image.

    Args:
      rows: of `samplers.json`, complete or not.
      usual: default sampler and steps of the checkpoint.
      file: open for writing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    scores, cost, likeness = figure.subplots(1, 3)
    _samplers(scores, [row for row in rows if row["cache_interval"] == 1])
    cached, fewer = caching(rows, usual), fewer_steps(rows, usual)
    for axis, field, label in (
        (cost, "score", "score on scenes"),
        (likeness, "psnr_to_usual", f"PSNR to {usual['steps']} steps without caching, dB"),
    ):
        _curve(axis, fewer, field, "steps", f"{usual['sampler']}, by steps", "#1b6ca8")
        name = f"{usual['steps']} steps, by cache interval"
        _curve(axis, cached, field, "cache_interval", name, "#c8553d")
        axis.set_xlabel("seconds per image")
        axis.set_title(label, fontsize=11)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8, frameon=False)
    figure.savefig(file, format="png", dpi=130)


def _samplers(axis: Any, rows: Sequence[Row]) -> None:
    for sampler, color in zip(sorted({row["sampler"] for row in rows}), _COLORS, strict=False):
        own = sorted((r for r in rows if r["sampler"] == sampler), key=lambda r: r["evaluations"])
        x, y = [row["evaluations"] for row in own], [row["score"] for row in own]
        axis.plot(x, y, color=color, marker="o", markersize=4, label=sampler)
    best = recommended(rows)
    axis.plot(
        best["evaluations"], best["score"], "o", markersize=12, markerfacecolor="none",
        markeredgecolor="black",
    )  # fmt: skip
    axis.axhline(threshold(rows), color="gray", linewidth=1, linestyle="--")
    ticks = sorted({row["steps"] for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.set_xlabel("evaluations of the network")
    axis.set_title("score on scenes; circle: recommended", fontsize=11)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)


def _curve(axis: Any, rows: Sequence[Row], field: str, label: str, legend: str, color: str) -> None:
    """Plot a line through the rows that have `field`, each point labeled by `label`."""
    points = [row for row in rows if row[field] is not None]
    x, y = [row["seconds_an_image"] for row in points], [row[field] for row in points]
    axis.plot(x, y, color=color, marker="o", markersize=4, label=legend)
    for row, place in zip(points, zip(x, y, strict=True), strict=True):
        axis.annotate(str(row[label]), place, textcoords="offset points", xytext=(4, 4), fontsize=8)
