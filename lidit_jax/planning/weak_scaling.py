"""Predicted weak scaling: the same number of images per chip on 64 to 4,096 chips."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import Config
from lidit_jax.hardware.topologies import GIB, parse_topology
from lidit_jax.planning.memory import modulation_parameters
from lidit_jax.planning.plan import Plan, make_plan
from lidit_jax.planning.plan_mesh import recipe_mesh
from lidit_jax.planning.roofline import Split, ring_fraction

_RECIPE = "lidit_10b:1024px,head128,v5p:8x8x16"
_TOPOLOGIES = ("v5p:4x4x4", "v5p:4x8x8", "v5p:8x8x16", "v5p:16x16x16")
_IMAGES_A_CHIP = 4
_BATCH = 4096
"""Batch size of the paper, for strong scaling."""
_INTRODUCTION = f"""## Weak scaling, predicted

`{_RECIPE}` with {_IMAGES_A_CHIP} images per chip; "strong" keeps the paper's batch of {_BATCH:,}.
"""
_END = """The bytes that a chip gathers and sums do not depend on the number of chips. Gradient
sums are not hidden; gathers are hidden by the products of {hidden:.2f} images per chip at 1024 px
and {hidden_512:.2f} at 512 px. By the formula, the MFU of weak scaling is therefore constant
(MaxText's v5p runs lost 3% to 13% of their MFU from one slice to two, most of which this formula
does not model). The compiled programs send the same bytes, except at 4,096 chips, where the
compiler also gathers the modulation's kernels: half as much again, most of it overlapped. Strong
scaling ends at the batch: 4,096 images are one per chip on 4,096 chips and fewer on more, too few
to hide the weights. More `fsdp` does not help: 2816 = 256 x 11 limits it to 256, and gathering over
more chips moves the same bytes. `tensor=2` halves the bytes that a chip gathers and gives a pair of
chips two images to hide them; its sums use another axis of the torus.
"""


@dataclass(frozen=True)
class Row:
    """Predictions for one number of chips."""

    weak: Plan
    """Plan with four images per chip."""
    strong: Plan
    """Plan with the paper's batch, too small for more than 4,096 chips."""
    gathered: float
    """Bytes per step over fsdp: two gathers of the weights and a reduction of their gradients."""
    summed: float
    """Bytes of gradients that a chip sends per step over data."""


def measure() -> list[Row]:
    """Compute the plans, with the recipe's layout on each topology."""
    config, rows = load_recipe(_RECIPE), []
    for name in _TOPOLOGIES:
        chips = parse_topology(name).chips
        weak = _planned(config, name, _IMAGES_A_CHIP * chips)
        held = weak.parameters / weak.split.fsdp
        traveling = weak.parameters - config.model.depth * modulation_parameters(config)
        rows.append(
            Row(
                weak,
                _planned(config, name, _BATCH),
                gathered=3 * 2.0 * traveling * weak.split.parts * ring_fraction(weak.split.fsdp),
                summed=2 * 4.0 * held * ring_fraction(weak.split.data),
            )
        )
    return rows


def _planned(config: Config, name: str, batch: int) -> Plan:
    topology = parse_topology(name)
    fsdp = min(config.mesh.fsdp, topology.devices)
    mesh = dataclasses.replace(config.mesh, fsdp=fsdp)
    split: Split = recipe_mesh(dataclasses.replace(config, mesh=mesh), topology)
    at_once = _IMAGES_A_CHIP // config.training.accumulation
    parts = max(batch // (split.rows * at_once), 1)
    training = dataclasses.replace(config.training, batch_size=batch, accumulation=parts)
    changed = dataclasses.replace(config, mesh=mesh, training=training)
    return make_plan(changed, topology, dataclasses.replace(split, parts=parts))


def is_row(facts: dict[str, Any]) -> bool:
    """Return whether a compiled plan belongs to the weak-scaling table."""
    recipe, batch = _words(facts["recipe"]), _IMAGES_A_CHIP * facts["chips"]
    return recipe == _words(_RECIPE) and facts["batch"] == batch


def _words(recipe: str) -> tuple[str, frozenset[str]]:
    """Parse a recipe name or file name into the recipe and its set of choices."""
    name, _, words = recipe.partition(":")
    return Path(name).stem, frozenset(words.split(","))


def section(rows: list[Row], plot: str, compiled: list[dict[str, Any]]) -> str:
    """Return the weak-scaling section as Markdown.

    Args:
      rows: result of `measure`.
      plot: file name of the plot.
      compiled: JSON objects of `lidit plan --compile --json`, for any plans.
    """
    heads = (
        "| chips | batch | mesh | GiB per chip | GiB over fsdp | GiB over data | "
        "s per step | MFU | strong: parts | s per step | MFU | compiler GiB per chip | GiB sent, "
        "compiled | s waiting | s to compile | MB of text |"
    )
    lines = [f"{_INTRODUCTION}\n![MFU by number of chips]({plot})\n", heads, "|---" * 16 + "|"]
    by_chips = {facts["chips"]: facts["compiled"] for facts in compiled if is_row(facts)}
    for row in rows:
        weak, strong = row.weak, row.strong
        cells = (
            f"{weak.topology.chips:,}",
            f"{weak.batch:,}",
            f"data {weak.split.data} x fsdp {weak.split.fsdp}",
            f"{weak.memory.total / GIB:.1f}",
            f"{row.gathered / GIB:.1f}",
            f"{row.summed / GIB:.2f}",
            f"{weak.seconds:.2f}",
            f"{weak.mfu:.1%}",
            f"{strong.split.parts}",
            f"{strong.seconds:.2f}",
            f"{strong.mfu:.1%}",
            *_compiled_cells(by_chips.get(weak.topology.chips)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    hidden, hidden_512 = (_images_that_hide(size) for size in (1024, 512))
    return "\n".join([*lines, "", _END.format(hidden=hidden, hidden_512=hidden_512)])


def _compiled_cells(compiled: dict[str, Any] | None) -> tuple[str, ...]:
    if compiled is None:
        return ("",) * 5
    return (
        f"{compiled['total'] / GIB:.1f}",
        f"{sum(row['bytes'] for row in compiled['collectives']) / GIB:.1f}",
        f"{compiled['waiting_seconds']:.3f}",
        f"{compiled['seconds']:.0f}",
        f"{compiled['program_bytes'] / 1e6:.1f}",
    )


def _images_that_hide(size: int) -> float:
    """Return the images per chip whose products take as long as gathering the weights."""
    config = load_recipe(_RECIPE)
    data = dataclasses.replace(config.data, image_size=size)
    found = _planned(dataclasses.replace(config, data=data), "v5p:8x8x16", _BATCH)
    images = _BATCH / found.topology.chips
    once = found.prediction.ici_weights / found.split.parts
    return images * once / found.prediction.step


def draw(rows: list[Row], file: Path) -> None:
    """Plot the predicted MFU and the memory per chip by number of chips."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    chips = [row.weak.topology.chips for row in rows]
    for label, plans in (
        (f"{_IMAGES_A_CHIP} images per chip", [row.weak for row in rows]),
        (f"batch {_BATCH:,}", [row.strong for row in rows]),
    ):
        left.plot(chips, [100 * one.mfu for one in plans], marker="o", label=label)
        right.plot(chips, [one.memory.total / GIB for one in plans], marker="o", label=label)
    left.set_ylabel("predicted MFU, %")
    left.set_ylim(0, 100)
    right.set_ylabel("GiB per chip")
    right.set_ylim(0)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(chips, [f"{n:,}" for n in chips])
        axes.set_xlabel("v5p chips")
    left.legend()
    figure.savefig(file, dpi=150)
