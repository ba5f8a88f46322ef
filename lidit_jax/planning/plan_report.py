"""Reports of a plan: a table for the terminal, JSON, and a chart of the memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lidit_jax.hardware.topologies import GIB
from lidit_jax.planning.calibration import held_out, summary
from lidit_jax.planning.compiled_plan import CompiledPlan
from lidit_jax.planning.frozen_costs import FrozenCost
from lidit_jax.planning.plan import Plan

_OWNERS = {
    "parameters": "weights in float32",
    "averages": "EMA weights",
    "optimizer": "moments",
    "gradients": "twice as large with accumulation",
    "gathered": "bfloat16 weights, one whole block",
    "kept": "activations kept for the backward pass",
    "working": "activations in use",
    "placement": "fragmentation",
    "encoders": "frozen LLMs, if online",
    "total": "",
}
_TERMS = {
    "products": "matrix products",
    "attention": "attention kernels",
    "hbm": "optimizer and element-wise work",
    "ici_activations": "activations sent over tensor and context",
    "ici_weights": "weights gathered within a slice (overlaps with the above)",
    "ici_gradients": "gradients summed within a slice",
    "dcn": "gradients summed between slices",
}
_NO_GPU_CHECK = "not compared with published steps on GPUs; the constants come from TPUs"


def report(
    plan: Plan,
    price: float,
    compiled: CompiledPlan | None = None,
    nearest: Plan | None = None,
    wider: Plan | None = None,
    *,
    frozen: Mapping[str, FrozenCost],
    refused: bool = False,
) -> dict[str, Any]:
    """Return all figures of a plan for JSON, in bytes, seconds, operations and units of the price.

    Args:
      plan: the plan.
      price: price per chip-hour.
      compiled: figures of the TPU compiler, if the plan was compiled.
      nearest: the nearest plan that fits, if this one does not.
      wider: the plan with heads of 128 channels, if the model's are narrower.
      frozen: cost of the "text" features and of the "latents", online and cached.
      refused: whether the compiler rejected the plan.
    """
    memory = plan.memory
    return {
        "topology": plan.topology.name,
        "chips": plan.topology.chips,
        "mesh": asdict(plan.split),
        "remat": plan.remat,
        "batch": plan.batch,
        "parameters": plan.parameters,
        "trained_parameters": plan.trained,
        "memory_bytes_a_device": asdict(memory) | {"total": memory.total},
        "hbm_bytes_a_device": plan.topology.generation.memory,
        "fits": bool(compiled) or (plan.free >= 0 and not refused),
        "nearest_that_fits": nearest and describe(nearest),
        "with_heads_of_128": wider
        and {
            "plan": describe(wider),
            "heads": wider.heads,
            "free": wider.free_fraction,
            "seconds_a_step": wider.seconds,
            "mfu": wider.mfu,
        },
        "model_flops_a_step": plan.model_flops,
        "prediction": {
            "seconds_a_step": plan.seconds,
            "mfu": plan.mfu,
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
            "weight_gather_seconds": plan.gathering_seconds,
            **_frozen_facts(frozen["text"]),
        },
        "latents": {"online": plan.latents_online, **_frozen_facts(frozen["latents"])},
        "compiled": compiled and add_predicted(compiled, plan),
        "held_out_errors": _NO_GPU_CHECK
        if plan.topology.generation.is_gpu
        else [
            {
                "family": one.run.family,
                "name": f"{one.run.name} on {one.run.topology.name}",
                "seconds": one.run.seconds,
                "error_without_run": one.without_run,
                "error_without_family": one.without_family,
            }
            for one in held_out()
        ],
    }


def add_predicted(compiled: CompiledPlan, plan: Plan) -> dict[str, Any]:
    """Return the compiler's figures, with the step time and MFU that follow from them."""
    model = plan.model_flops / plan.topology.devices
    waiting = compiled.waiting_seconds(plan.topology)
    hidden = plan.topology.generation.hides_sums
    counted = 0.0 if hidden else plan.prediction.ici_gradients
    seconds = plan.seconds + max(waiting - counted, 0.0)
    return asdict(compiled) | {
        "total": compiled.total,
        "model_over_compiled": model / compiled.flops,
        "waiting_seconds": waiting,
        "waiting_predicted": counted,
        "mfu_waiting_included": plan.mfu * plan.seconds / seconds,
    }


def describe(plan: Plan) -> str:
    """Describe topology, mesh, remat policy and gradient accumulation in one line."""
    sizes = {axis: size for axis, size in asdict(plan.split).items() if axis != "parts"}
    mesh = ",".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1)
    parts = f", accumulation {plan.split.parts}" if plan.split.parts > 1 else ""
    return f"{plan.topology.name}, {mesh or 'one device'}, remat {plan.remat}{parts}"


def print_plan(plan: Plan, facts: dict[str, Any]) -> None:
    """Print the report as a table."""
    from rich.table import Table

    from lidit_jax.io.console import NoWrapConsole

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("plan", describe(plan))
    parameters = f"{plan.parameters / 1e9:.2f} B parameters"
    if plan.trained < plan.parameters:
        parameters += f" ({plan.trained / 1e9:.2f} B trained)"
    table.add_row("model", f"{parameters}, {plan.heads} heads, batch {plan.batch}")
    for owner, size in facts["memory_bytes_a_device"].items():
        table.add_row(f"  {owner}", f"{size / GIB:8.2f} GiB per device  {_OWNERS[owner]}".rstrip())
    table.add_row("fits", _fits(plan, facts))
    predicted = facts["prediction"]
    for name, meaning in _TERMS.items():
        table.add_row(f"  {name}", f"{predicted['terms'][name]:8.3f} s  {meaning}")
    if plan.text.online:
        gather = facts["text"]["weight_gather_seconds"]
        meaning = (
            f"captions by frozen LLMs, whose weights are gathered in {gather:.2f} s every "
            f"{plan.text.steps_a_call} steps"
        )
        table.add_row("  encoding", f"{plan.encoding_seconds:8.3f} s  {meaning}")
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
    for name in ("text", "latents"):
        table.add_row(name, _frozen_line(facts[name], predicted["chip_hours"]))
    for source in plan.text.assumed:
        table.add_row("  assumed", f"that {source} has 8 B parameters and is 4096 wide")
    if facts["compiled"]:
        _add_compiled(table, facts["compiled"])
        if plan.text.online:
            table.add_row("  not counted", "the frozen encoders, which are a separate program")
    table.add_row("error of the prediction", held_out_line(gpu=plan.topology.generation.is_gpu))
    if wider := facts["with_heads_of_128"]:
        table.add_row(
            "with heads of 128",
            f"{wider['plan']}: {wider['free']:.0%} of the HBM free, "
            f"{wider['seconds_a_step']:.3f} s, MFU {wider['mfu']:.1%} (config.model.heads="
            f"{wider['heads']}: another model with as many parameters and operations, which uses "
            "more of the matrix unit)",
        )
    NoWrapConsole().show(table)


def _frozen_facts(cost: FrozenCost) -> dict[str, float | None]:
    """Return the cost of frozen outputs for JSON."""
    return {
        "cached_bytes_a_sample": cost.bytes_per_sample,
        "cached_bytes": cost.cached_bytes,
        "cached_bytes_read_a_second": cost.read_per_second,
        "online_chip_hours": cost.online_chip_hours,
        "cached_chip_hours": cost.cached_chip_hours,
        "break_even_chip_hours_per_terabyte_month": (
            cost.break_even if math.isfinite(cost.break_even) else None
        ),
    }


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _frozen_line(cost: dict[str, Any], run: float) -> str:
    """Describe what caching frozen outputs saves, and what it stores."""
    here = "online" if cost["online"] else "cached"
    break_even = cost["break_even_chip_hours_per_terabyte_month"]
    if not cost["online_chip_hours"]:
        return f"no frozen model to run ({here} here)"
    cheaper = (
        "cached is cheaper where a terabyte of storage costs less per month than "
        f"{_rounded(break_even)} chip-hours"
        if break_even
        else "online is cheaper, as no image is used twice"
    )
    size, total = cost["cached_bytes_a_sample"] / 1e6, cost["cached_bytes"] / 1e12
    online, share = cost["online_chip_hours"], cost["online_chip_hours"] / run
    return (
        f"online: {online:,.0f} chip-hours, {share:.0%} of the run; cached: "
        f"{cost['cached_chip_hours']:,.0f} chip-hours, {size:.2f} MB per sample, {total:.1f} TB, "
        f"read at {cost['cached_bytes_read_a_second'] / 1e9:.1f} GB/s; {cheaper} ({here} here)"
    )


def held_out_line(*, gpu: bool) -> str:
    """Return a line with the roofline's error on published steps held out by family."""
    if gpu:
        return f"unknown: {_NO_GPU_CHECK}"
    rows = [f"{family} {largest:.0%} ({count})" for family, count, _, _, largest in summary()]
    return "largest on published steps held out by family: " + ", ".join(rows)


def _add_compiled(table: Any, compiled: dict[str, Any]) -> None:
    table.add_row(
        "compiled",
        f"{compiled['total'] / GIB:.2f} GiB per device "
        f"({compiled['arguments'] / GIB:.2f} arguments, "
        f"{compiled['temporaries'] / GIB:.2f} temporaries), in {compiled['seconds']:.0f} s, "
        f"{compiled['program_bytes'] / 1e6:.1f} MB of text",
    )
    table.add_row(
        "  operations",
        f"{compiled['flops']:.3g} per device and step, model/compiled "
        f"{compiled['model_over_compiled']:.2f}; {compiled['hbm_bytes'] / GIB:.1f} GiB of HBM",
    )
    for row in compiled["collectives"]:
        if row["bytes"] >= 1e6:
            axes = " x ".join(row["axes"]) or "unknown groups"
            share = row["overlapping_bytes"] / row["bytes"]
            table.add_row(
                f"  {row['kind']}",
                f"{row['bytes'] / GIB:8.3f} GiB over {axes}, {row['times']:.0f} per step, "
                f"{share:.0%} overlapped",
            )
    table.add_row(
        "  waiting",
        f"{compiled['waiting_seconds']:8.3f} s  for collectives without overlap, at full link "
        f"bandwidth; the prediction includes {compiled['waiting_predicted']:.3f} s of it. MFU with "
        f"all of it: {compiled['mfu_waiting_included']:.1%}",
    )
    for name in compiled["uncounted"]:
        table.add_row("  not counted", name)


def print_ranking(plans: list[Plan]) -> None:
    """Print the best plans of a search, one per line."""
    from rich.table import Table

    from lidit_jax.io.console import NoWrapConsole

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("mesh", "parts", "remat", "free GiB", "predicted s", "predicted MFU"):
        table.add_column(title)
    for plan in plans:
        sizes = {axis: size for axis, size in asdict(plan.split).items() if axis != "parts"}
        table.add_row(
            ",".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1),
            str(plan.split.parts),
            plan.remat,
            f"{plan.free / GIB:.1f}",
            f"{plan.seconds:.3f}",
            f"{plan.mfu:.1%}",
        )
    NoWrapConsole().show(table)


def draw(plan: Plan, file: Path) -> None:
    """Draw a device's memory as a PNG: the plan's need beside the HBM, and its parts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    share, owners = figure.subplots(2)
    needed, limit = plan.memory.total / GIB, plan.topology.generation.memory / GIB
    share.barh(0, needed, color="lightsteelblue", label=f"needed, {needed:.1f} GiB")
    share.axvline(limit, color="black", linestyle="--", label=f"HBM, {limit:.1f} GiB")
    share.set_title(f"memory per device of {plan.topology.name}", fontsize="medium")
    left = 0.0
    for owner, size in asdict(plan.memory).items():
        if size:
            owners.barh(0, size / GIB, left=left, label=f"{owner} {size / GIB:.1f}")
            left += size / GIB
    owners.set_xlim(0, needed)
    owners.set_xlabel("GiB")
    for axes in (share, owners):
        axes.set_yticks([])
    share.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    owners.legend(ncols=4, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.5))
    figure.savefig(file, dpi=150, bbox_inches="tight")


def _fits(plan: Plan, facts: dict[str, Any]) -> str:
    size = plan.topology.generation.memory
    if compiled := facts["compiled"]:
        free = size - compiled["total"]
        return f"yes: it compiles; {free / GIB:.1f} GiB ({free / size:.0%}) of the HBM are free"
    if facts["fits"]:
        return f"yes, {plan.free / GIB:.1f} GiB ({plan.free_fraction:.0%}) of the HBM are free"
    nearest = facts["nearest_that_fits"]
    remedy = f"the nearest that fits: {nearest}" if nearest else "no larger slice exists"
    if plan.free >= 0:
        return f"no, the compiler rejects it; {remedy}"
    return f"no, {-plan.free / GIB:.1f} GiB too much per device; {remedy}"
