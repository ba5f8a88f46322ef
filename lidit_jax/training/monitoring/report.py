"""HTML report of a run: settings, loss curves, newest images and speed."""

from __future__ import annotations

import base64
import html
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lidit_jax.io.output import atomic_file
from lidit_jax.training.monitoring.metric_files import RECORDS, read_records
from lidit_jax.training.resume import flat_fields

_PLOTTED = ("loss", "validation_loss", "validation_loss_ema")
_SHOWN = {
    "loss": ("training loss", "{:.4f}"),
    "validation_loss": ("validation loss", "{:.4f}"),
    "validation_loss_ema": ("validation loss, averaged weights", "{:.4f}"),
    "scene_score": ("score on scenes, averaged weights", "{:.1%}"),
    "images_per_second": ("images/s, median", "{:.1f}"),
    "step_seconds": ("seconds a step, median", "{:.3f}"),
    "data_wait_fraction": ("share of time waiting for data", "{:.1%}"),
    "goodput": ("goodput: share of all time in steps that count", "{:.1%}"),
    "compile_seconds": ("seconds of compiling step and validation", "{:.1f}"),
    "skipped_records": ("records that could not be read, of process 0", "{:.0f}"),
    "repaired_records": ("damaged images that were repaired, of process 0", "{:.0f}"),
    "cut_captions": ("captions that were cut, of process 0", "{:.0f}"),
    "device_memory_gib": ("largest use of a device's memory, GiB", "{:.2f}"),
    "tflops_per_second_per_device": ("TFLOP/s a device, frozen models apart", "{:.3f}"),
    "model_flops_utilization": ("model FLOPs utilization", "{:.1%}"),
    "gradient_norm": ("gradient norm", "{:.3f}"),
    "applied": ("share of updates applied", "{:.1%}"),
}
_MEDIANS = ("images_per_second", "step_seconds")
"""Metrics shown as the median over log intervals, because a single interval is noisy."""
_FEWEST_TICKS = 3
_STYLE = "body{font:15px/1.5 system-ui;max-width:60em;margin:2em auto;padding:0 1em}"
_STYLE += "td,th{padding:.1em 1em .1em 0;text-align:left}img{max-width:100%}"


def write_report(workdir: Path) -> None:
    """Write `loss.png` and a self-contained `report.html`; nothing without records."""
    records = read_records(workdir / RECORDS)
    settings = {}
    if (workdir / "config.json").is_file():
        settings = flat_fields(json.loads((workdir / "config.json").read_bytes()))
    if not plot_losses(records, workdir / "loss.png"):
        return
    last: dict[str, float] = {}
    for record in records:
        last |= record
    for name in _MEDIANS:
        if name in last:
            last[name] = statistics.median(record[name] for record in records if name in record)
    figures = [
        (label, layout.format(last[name]))
        for name, (label, layout) in _SHOWN.items()
        if name in last
    ]
    parts = [f"<h1>{html.escape(workdir.name)}, step {last['step']}</h1>", _table(figures)]
    parts += _by_time(last) + _by_module(last)
    parts.append(_image_html(workdir / "loss.png"))
    parts += [_image_html(grid) for grid in sorted((workdir / "images").glob("*.png"))[-1:]]
    if settings:
        table = _table(settings.items())
        parts.append(f"<details><summary>Configuration</summary>{table}</details>")
    page = f"<!doctype html><meta charset=utf-8><title>Run</title><style>{_STYLE}</style>"
    with atomic_file(workdir / "report.html") as file:
        file.write((page + "\n".join(parts)).encode())


def plot_losses(records: Iterable[dict[str, Any]], target: Path) -> bool:
    """Plot training and validation losses over the steps; return False when there are none.

    The last value of a step that was repeated after a resume is used.

    Args:
      records: the lines of `metrics.jsonl`.
      target: the image file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    curves: dict[str, dict[int, float]] = {}
    for record in records:
        for name in _PLOTTED:
            if math.isfinite(record.get(name, math.nan)):
                curves.setdefault(name, {})[record["step"]] = record[name]
    if not curves:
        return False
    figure, axes = plt.subplots(figsize=(8, 4.5))
    for name, points in sorted(curves.items()):
        steps = sorted(points)
        axes.plot(steps, [points[s] for s in steps], label=_SHOWN[name][0], marker=".")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    ticks = loss_ticks(*axes.get_ylim())
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_file(target) as file:
        figure.savefig(file, format="png", dpi=120, bbox_inches="tight")
    plt.close(figure)
    return True


def loss_ticks(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to `high` as tick labels of a logarithmic axis.

    They are 1, 2 and 5 times the powers of ten if these are three or more, else even steps.
    """
    from matplotlib.ticker import MaxNLocator

    if not 0 < low < high < math.inf:
        return []
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) >= _FEWEST_TICKS:
        return ticks
    even = (
        float(f"{tick:.6g}") for tick in MaxNLocator(6, steps=(1, 2, 5, 10)).tick_values(low, high)
    )
    return [tick for tick in even if low <= tick <= high]


def _by_time(last: dict[str, float]) -> list[str]:
    """Describe the newest training loss per part of the time range; empty for an autoencoder."""
    parts = _below("loss_by_time", last)
    rows = [(part, f"{loss:.4f}") for part, loss in sorted(parts.items())]
    caption = "Training loss by time of diffusion, from 0 (image) to 1 (noise)"
    return [f"<h2>{caption}</h2>", _table(rows, ("time", "loss"))] if rows else []


def _by_module(last: dict[str, float]) -> list[str]:
    """Describe the newest norms of each module's gradient and update."""
    gradients, updates = _below("gradient_norm", last), _below("update_norm", last)
    rows = [
        (module, f"{gradients[module]:.2e}", f"{updates[module]:.2e}")
        for module in sorted(gradients.keys() & updates.keys())
    ]
    header = ("module", "gradient", "update")
    return ["<h2>Norms by module</h2>", _table(rows, header)] if rows else []


def _below(name: str, values: dict[str, float]) -> dict[str, float]:
    """Select the values whose names begin with `name/`, and remove that prefix."""
    start = f"{name}/"
    return {key.removeprefix(start): values[key] for key in values if key.startswith(start)}


def _table(rows: Iterable[tuple[Any, ...]], header: Sequence[str] = ()) -> str:
    lines = ["".join(f"<th>{html.escape(name)}</th>" for name in header)] if header else []
    for name, *values in rows:
        cells = "".join(f"<td>{html.escape(str(value))}</td>" for value in values)
        lines.append(f"<th>{html.escape(name)}</th>{cells}")
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _image_html(file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<p><img alt="{html.escape(file.name)}" src="data:image/png;base64,{data}"></p>'
