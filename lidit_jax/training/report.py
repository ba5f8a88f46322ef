"""One page about a run: its settings, its curves, its newest pictures, its speed."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lidit_jax.output import atomic_file
from lidit_jax.training.metric_files import RECORDS, read_records
from lidit_jax.training.resume import flat_fields

_PLOTTED = ("loss", "validation_loss", "validation_loss_ema")
_SHOWN = {
    "loss": ("training loss", "{:.4f}"),
    "validation_loss": ("validation loss", "{:.4f}"),
    "validation_loss_ema": ("validation loss, averaged weights", "{:.4f}"),
    "scene_score": ("score on scenes, averaged weights", "{:.1%}"),
    "images_per_second": ("images/s", "{:.1f}"),
    "step_seconds": ("seconds a step", "{:.3f}"),
    "data_wait_share": ("share of time waiting for data", "{:.1%}"),
    "goodput": ("goodput: share of all time in steps that count", "{:.1%}"),
    "device_memory_gib": ("largest use of a device's memory, GiB", "{:.2f}"),
    "tflops_per_second_per_device": ("TFLOP/s a device, frozen models apart", "{:.3f}"),
    "model_flops_utilisation": ("model FLOPs utilisation", "{:.1%}"),
    "gradient_norm": ("gradient norm", "{:.3f}"),
    "applied": ("share of updates applied", "{:.1%}"),
}
_STYLE = "body{font:15px/1.5 system-ui;max-width:60em;margin:2em auto;padding:0 1em}"
_STYLE += "td,th{padding:.1em 1em .1em 0;text-align:left}img{max-width:100%}"


def write_report(workdir: Path) -> None:
    """Writes `loss.png` and `report.html`, which needs no other file; nothing without records."""
    records = read_records(workdir / RECORDS)
    if not plot_losses(records, workdir / "loss.png"):
        return
    last: dict[str, float] = {}
    for record in records:
        last |= record
    figures = [
        (label, layout.format(last[name]))
        for name, (label, layout) in _SHOWN.items()
        if name in last
    ]
    parts = [f"<h1>{html.escape(workdir.name)}, step {last['step']}</h1>", _table(figures)]
    parts.append(_picture(workdir / "loss.png"))
    parts += [_picture(grid) for grid in sorted((workdir / "images").glob("*.png"))[-1:]]
    if (workdir / "config.json").is_file():
        settings = flat_fields(json.loads((workdir / "config.json").read_bytes())).items()
        parts.append(f"<details><summary>Configuration</summary>{_table(settings)}</details>")
    page = f"<!doctype html><meta charset=utf-8><title>Run</title><style>{_STYLE}</style>"
    with atomic_file(workdir / "report.html") as file:
        file.write((page + "\n".join(parts)).encode())


def plot_losses(records: Iterable[dict[str, Any]], target: Path) -> bool:
    """Draws training and validation losses over the steps; False when there are none.

    After a resume the last value of a repeated step counts.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

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
        axes.plot(steps, [points[s] for s in steps], label=name.replace("_", " "), marker=".")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_file(target) as file:
        figure.savefig(file, format="png", dpi=120, bbox_inches="tight")
    plt.close(figure)
    return True


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    cells = (f"<tr><th>{html.escape(n)}<td>{html.escape(str(v))}</td></tr>" for n, v in rows)
    return f"<table>{''.join(cells)}</table>"


def _picture(file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<p><img alt="{html.escape(file.name)}" src="data:image/png;base64,{data}"></p>'
