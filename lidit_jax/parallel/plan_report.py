"""A plan for people and for scripts: table, JSON, and a picture of the memory."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lidit_jax.parallel.plan import Plan
from lidit_jax.parallel.roofline import validation

_GIB = 2**30
_TERMS = {
    "mxu": "matrix products and attention",
    "hbm": "optimizer and element-wise work",
    "ici_activations": "activations over tensor and context (half of it hidden)",
    "ici_weights": "weights and gradients within a slice (hidden behind the above)",
    "dcn": "gradients between slices",
}


def report(plan: Plan, images: int, price: float, compiled: float | None = None) -> dict[str, Any]:
    """All figures, in bytes, seconds, operations and units of the price.

    Args:
      plan: the plan.
      images: training images, for the storage of cached text features.
      price: of a chip for an hour.
      compiled: bytes a chip by the TPU compiler, where it was asked.
    """
    memory = plan.memory
    return {
        "topology": plan.topology.name,
        "chips": plan.topology.chips,
        "mesh": asdict(plan.split),
        "remat": plan.remat,
        "parameters": plan.parameters,
        "memory_bytes_a_chip": asdict(memory) | {"total": memory.total},
        "compiled_bytes_a_chip": compiled,
        "hbm_bytes_a_chip": plan.topology.generation.memory,
        "fits": plan.free >= 0,
        "model_flops_a_step": plan.model_flops,
        "prediction": {
            "seconds_a_step": plan.seconds,
            "mfu": plan.prediction.mfu * plan.prediction.step / plan.seconds,
            "terms": {name: getattr(plan.prediction, name) for name in _TERMS}
            | {"encoding": plan.encoding_seconds},
            "images_a_second": plan.batch / plan.seconds,
            "chip_hours": plan.chip_hours,
            "days": plan.seconds * plan.steps / 86_400,
            "cost": plan.chip_hours * price,
        },
        "text": {
            "online": plan.text.online,
            "encoding_flops_a_step": plan.batch * plan.text.encoding_flops,
            "cached_bytes_a_sample": plan.text.bytes_a_caption,
            "cached_bytes": images * plan.text.bytes_a_caption,
        },
        "published_runs": [
            {"name": name, "seconds": seconds, "error": error}
            for name, seconds, error in validation()
        ],
    }


def print_plan(plan: Plan, facts: dict[str, Any]) -> None:
    """The report as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    split = ", ".join(f"{axis}={size}" for axis, size in facts["mesh"].items() if size > 1)
    table.add_row("pod", f"{facts['topology']}, {facts['chips']} chips; {split or 'one chip'}")
    parameters = facts["parameters"] / 1e9
    table.add_row("model", f"{parameters:.2f} B parameters, batch {plan.batch}, remat {plan.remat}")
    for owner, size in facts["memory_bytes_a_chip"].items():
        table.add_row(f"  {owner}", f"{size / _GIB:8.2f} GiB a chip")
    if facts["compiled_bytes_a_chip"]:
        table.add_row("  compiler's total", f"{facts['compiled_bytes_a_chip'] / _GIB:8.2f} GiB")
    table.add_row("fits", _fits(plan))
    predicted = facts["prediction"]
    for name, meaning in _TERMS.items():
        table.add_row(f"  {name}", f"{predicted['terms'][name]:8.3f} s  {meaning}")
    if plan.text.online:
        table.add_row("  encoding", f"{plan.encoding_seconds:8.3f} s  captions by frozen LLMs")
    table.add_row(
        "predicted step",
        f"{plan.seconds:.3f} s, MFU {predicted['mfu']:.1%} of {plan.model_flops:.3g} operations, "
        f"{predicted['images_a_second']:,.0f} images/s",
    )
    cost = f", cost {predicted['cost']:,.0f}" if predicted["cost"] else ""
    table.add_row(
        "predicted run",
        f"{plan.steps:,} steps: {predicted['days']:.1f} days, "
        f"{predicted['chip_hours']:,.0f} chip-hours{cost}",
    )
    text = facts["text"]
    share = text["encoding_flops_a_step"] / plan.model_flops
    table.add_row(
        "text",
        f"online: {share:.1%} more operations a step; cached: "
        f"{text['cached_bytes_a_sample'] / 1e6:.2f} MB a sample, {text['cached_bytes'] / 1e12:.1f} "
        f"TB ({'online' if text['online'] else 'cached'} here)",
    )
    errors = ", ".join(f"{r['name']} {r['error']:+.0%}" for r in facts["published_runs"])
    table.add_row("error of the prediction", f"on published v5p runs: {errors}")
    Console().print(table)


def print_ranking(plans: list[Plan]) -> None:
    """The best plans of a search, a line each."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("mesh", "parts", "remat", "free GiB", "predicted s", "predicted MFU"):
        table.add_column(title)
    for plan in plans:
        sizes = {axis: size for axis, size in asdict(plan.split).items() if axis != "parts"}
        table.add_row(
            ",".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1),
            str(plan.split.parts),
            plan.remat,
            f"{plan.free / _GIB:.1f}",
            f"{plan.seconds:.3f}",
            f"{plan.prediction.mfu:.1%}",
        )
    Console().print(table)


def draw(plan: Plan, file: Path) -> None:
    """A bar of a chip's memory, by owner, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.2), layout="constrained")
    axes = figure.add_subplot()
    left = 0.0
    for owner, size in asdict(plan.memory).items():
        if size:
            axes.barh(0, size / _GIB, left=left, label=f"{owner} {size / _GIB:.1f}")
            left += size / _GIB
    limit = plan.topology.generation.memory / _GIB
    axes.axvline(limit, color="black", linestyle="--", label=f"HBM {limit:.1f}")
    axes.set_yticks([])
    axes.set_xlabel(f"GiB a chip on {plan.topology.name}")
    axes.legend(ncols=4, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.35))
    figure.savefig(file, dpi=150)


def _fits(plan: Plan) -> str:
    size = plan.topology.generation.memory
    if plan.free >= 0:
        return f"yes, {plan.free / _GIB:.1f} GiB ({plan.free / size:.0%}) of the HBM stay free"
    return (
        f"no, {-plan.free / _GIB:.1f} GiB too much a chip: more chips over fsdp, a stronger "
        "config.model.remat or more config.training.accumulation (try --search)"
    )
