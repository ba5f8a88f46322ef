"""Writer of `docs/plans.md`: the plans of all recipes on all of their topologies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from lidit_jax.config.load import load_recipe, recipe_choices
from lidit_jax.config.recipe_choices import SLICES
from lidit_jax.hardware.topologies import GIB, parse_topology
from lidit_jax.planning import weak_scaling
from lidit_jax.planning.calibration import summary
from lidit_jax.planning.compiled_plan import compiled_plan_from_json
from lidit_jax.planning.plan import Plan, make_plan
from lidit_jax.planning.plan_mesh import recipe_mesh
from lidit_jax.planning.plan_report import add_predicted, describe
from lidit_jax.planning.plan_search import search
from lidit_jax.planning.roofline import CONSTANTS, Split

_STAGES = (("lidit_1b", ""), ("lidit_10b", ""), ("lidit_10b", "1024px"))
_GPU_NODES = {"lidit_1b": ("h100:8x8", "h200:8x8"), "lidit_10b": ("h100:8x32", "h200:8x32")}
_SEARCHED = ("v5p:8x8x16", "v6e:16x16", "v5e:16x16")
_HEADS = ("", "head128")
_GROWN = ("", "all", "512px", "1024px")
"""Stages of `lidit_1b_from_pixart`; the first has no word."""
_SMALL = ("v5e:4x4", "h100:1x1")
_COMPILED = "compiled"
"""Folder of the JSON files of `lidit plan --compile --json=FILE`, one per recipe and topology."""

_INTRODUCTION = f"""# Plans of the recipes

Written by `lidit plan --all-recipes --out=docs`. A formula predicts all figures; none is measured.
Cost = chip-hours x your price per chip-hour. MFU counts the model's operations, without
recomputation and without the frozen encoders.

The roofline has two fitted constants (matrix products reach {CONSTANTS.matmul:.1%} of the peak;
{CONSTANTS.exposed:.0%} of the activations' collectives are not hidden) and three set by hand. The
fit minimizes squared logarithms over the published steps below. Each error is for constants fitted
*without* the step, or without its whole family. The formula was designed on the v5p rows; the rows
of v4, v5e and v6e were added later and changed only the two constants. That gradient sums are not
hidden, except on tpu7x, was observed in compiled programs (below) and added last. Among equally
fast plans, a search prefers the one that sends less.
"""
_RECIPES = """## Every recipe on its topologies

`lidit train --config=configs/RECIPE.py:CHOICES`. Memory is per device (half a chip on
tpu7x), with the fraction of its HBM that is free.
"""
_NARROW_HEADS = """## Cost of narrow heads

The matrix unit is 128 wide (256 on v6e and tpu7x): heads of 72 or 64 channels leave half or three
quarters of it idle in both matrix products of attention. With the same parameters and operations:
"""
_SEARCH = """## Fastest plans

`lidit plan --config=lidit_10b:1024px --topology=... --search` compares all meshes, remat policies
and numbers of accumulated parts that leave a tenth of the HBM free. The fastest of each topology:
"""
_TEXT = """## Captions: cached, or encoded while training

Two LLMs of 8 and 7 billion parameters in bfloat16, split over all devices, and 100 tokens per
caption. `online` gathers their 30 GB once for the captions of several steps (8 for the 1B, 4 for
the 10B). Cached features take 49 TB for 30 million captions, and 1.6 PB for a billion.
"""
_GPUS = """## GPU nodes, by the formula only

Neither a compiler nor published steps were compared. The constants come from TPUs; the clock under
the power limit comes from the fastest product measured (80% of the data sheet's peak).
"""
_PIXART = """## Grown from PixArt, or trained from scratch

`lidit train --config=configs/lidit_1b_from_pixart.py:STAGE` in four stages, and `lidit_1b.py`, on
16 TPU v5e and on one H100. No stage was trained: their lengths are ours, and nobody knows how good
a model they give. Frozen weights have no gradients, moments and sums between devices; activations
have gradients throughout.
"""
_COMPILATION = """## Compiled

Compiled by libtpu on a machine without a TPU, with the flags of the generation, each by
`lidit plan --config=RECIPE --topology=NAME --compile --json=docs/compiled/FILE.json`. The columns:
memory per device by the compiler and by the formula, two of whose constants were taken from these
programs; operations of the model over those of the program, which include recomputation, padding
and the backward kernel's recomputed scores; bytes sent; and the time that devices wait for
collectives without overlap, at full link bandwidth, with the gradient sums that the prediction
includes. The last MFU includes all of it. Plans without a row were not compiled.

These programs showed what the recipes follow. Gradients split into fewer than 16 rows, or over all
256 chips of v5e or v6e (the formula ignores this), are summed in full before each device takes its
slice. A recipe therefore splits its weights over a part of the slice, in shards of a multiple of
eight rows where memory allows, and replicates them over the rest. Weights split over a whole slice
of v5p or tpu7x were gathered by summing zeros, which a flag set by `lidit train` prevents.

For memory: `dots` kept the float32 scores of plain attention, a quarter of the memory of the 1B at
256 px; now it keeps only products of weights. Refiners that no remat policy covered kept their
gathered weights until the backward pass; covering them saves 0.7 GiB of 14.5 on v5e, and no more is
sent. The kernel's results are stored in lanes of 128 channels, so that heads of 64 take twice their
size; on tpu7x the lanes hold tokens, and they do not.
"""


def write_recipe_plans(folder: Path) -> list[Path]:
    """Write `plans.md` and `weak_scaling.png` into a folder; the compiler's figures in them are
    read from the JSON files in its subfolder `compiled`, if there is one."""
    page, plot = folder / "plans.md", folder / "weak_scaling.png"
    rows = weak_scaling.measure()
    sections = [
        _introduction(),
        _recipes(),
        _head_widths(),
        _searches(),
        _text(),
        _gpus(),
        _pixart(),
    ]
    compiled = [
        json.loads(file.read_text()) for file in sorted((folder / _COMPILED).glob("*.json"))
    ]
    recipes = [one for one in compiled if one["batch"] == _batch(one["recipe"])]
    if recipes:
        sections.append(_compiled(recipes))
    sections.append(weak_scaling.section(rows, plot.name, compiled))
    page.write_text("\n\n".join(sections) + "\n")
    weak_scaling.draw(rows, plot)
    return [page, plot]


def table(heads: str, rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; `heads` holds the column heads, separated by bars."""
    count = heads.count("|") + 1
    lines = [f"| {heads} |", "|---" * count + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _introduction() -> str:
    rows = [
        (family, str(count), f"{median:.0%}", f"{alone:.0%}", f"{together:.0%}")
        for family, count, median, alone, together in summary()
    ]
    heads = "published steps | rows | median error, row held out | largest | family held out"
    return f"{_INTRODUCTION}\n{table(heads, rows)}"


def _recipes() -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for recipe, stage in _STAGES:
            for name in recipe_choices(recipe).placements:
                for word, slices in {"": 1, **SLICES}.items():
                    batch = load_recipe(recipe).training.batch_size
                    if parse_topology(name, slices).devices > batch:
                        continue
                    words = _joined(stage, name, word)
                    found = _plan(recipe, words, name, slices)
                    layout = describe(found).partition(", ")[2]
                    yield (
                        recipe,
                        f"`{words}`",
                        f"{found.topology.chips:,}",
                        layout,
                        *_cells(found),
                    )

    heads = "recipe | choices | chips | layout | GiB (free) | s per step | MFU | days | chip-hours"
    return f"{_RECIPES}\n{table(heads, rows())}"


def _head_widths() -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for recipe, stage in _STAGES:
            for name in recipe_choices(recipe).placements:
                cells = [_title(recipe, stage), name]
                for heads in _HEADS:
                    words = _joined(stage, heads, name)
                    model = load_recipe(f"{recipe}:{words}").model
                    found = _plan(recipe, words, name)
                    shape = f"{model.heads} x {model.width // model.heads}"
                    cells += [shape, f"{found.seconds:.3g}", f"{found.mfu:.1%}"]
                yield tuple(cells)

    heads = "recipe | topology | paper's heads | s per step | MFU | `head128` | s per step | MFU"
    return f"{_NARROW_HEADS}\n{table(heads, rows())}"


def _searches() -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for heads in _HEADS:
            words = _joined("1024px", heads)
            for name in _SEARCHED:
                best = search(load_recipe(f"lidit_10b:{words}"), parse_topology(name))[0]
                yield (f"`{words}`", describe(best), *_cells(best))

    heads = "choices | plan | GiB (free) | s per step | MFU | days | chip-hours"
    return f"{_SEARCH}\n{table(heads, rows())}"


def _text() -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for recipe, stage in _STAGES:
            for name in ("v5e:16x16", "v5p:8x8x16"):
                cached = _plan(recipe, _joined(stage, name), name)
                online = _plan(recipe, _joined(stage, name, "online"), name)
                yield (
                    _title(recipe, stage),
                    name,
                    f"{cached.seconds:.3g}",
                    f"{cached.text.bytes_a_caption / 1e6:.2f} MB",
                    f"{online.seconds:.3g}",
                    f"{online.memory.encoders / GIB:.2f}",
                )

    heads = (
        "recipe | topology | s per step, cached | features per caption | s per step, online | "
        "LLMs' GiB per device"
    )
    return f"{_TEXT}\n{table(heads, rows())}"


def _gpus() -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for recipe, stage in _STAGES:
            for name in _GPU_NODES[recipe]:
                best = search(load_recipe(f"{recipe}:{stage}"), parse_topology(name))[0]
                yield (_title(recipe, stage), describe(best), *_cells(best))

    heads = "recipe | plan | GiB (free) | s per step | MFU | days | GPU-hours"
    return f"{_GPUS}\n{table(heads, rows())}"


def _pixart() -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        stages = [*(("lidit_1b_from_pixart", stage) for stage in _GROWN), ("lidit_1b", "")]
        for recipe, stage in stages:
            config = load_recipe(f"{recipe}:{stage}")
            for name in _SMALL:
                best = search(config, parse_topology(name))[0]
                trained = f"{best.trained / 1e9:.2f} of {best.parameters / 1e9:.2f} B"
                run = f"{best.steps:,} x {best.batch:,}"
                pixels = f"{config.data.image_size} px"
                yield (_title(recipe, stage), pixels, trained, run, describe(best), *_cells(best))

    heads = (
        "recipe | images | trained | steps x batch | plan | GiB (free) | s per step | MFU | days | "
        "chip-hours"
    )
    return f"{_PIXART}\n{table(heads, rows())}"


def _batch(recipe: str) -> int:
    return load_recipe(recipe).training.batch_size


def _compiled(entries: list[dict]) -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for facts in entries:
            found = replan(facts)
            compiled = add_predicted(compiled_plan_from_json(facts["compiled"]), found)
            sent = sum(row["bytes"] for row in compiled["collectives"]) / GIB
            hidden = sum(row["overlapping_bytes"] for row in compiled["collectives"]) / GIB
            yield (
                f"`{facts['recipe']}`",
                ", ".join(f"{axis}={n}" for axis, n in facts["mesh"].items() if n > 1),
                f"{compiled['total'] / GIB:.1f}",
                f"{found.memory.total / GIB:.1f}",
                f"{compiled['model_over_compiled']:.2f}",
                f"{hidden:.1f} of {sent:.1f} GiB",
                f"{compiled['waiting_seconds']:.3f} ({compiled['waiting_predicted']:.3f})",
                f"{found.seconds:.3g}",
                f"{compiled['mfu_waiting_included']:.1%}",
                f"{compiled['seconds']:.0f}",
                f"{compiled['program_bytes'] / 1e6:.1f}",
            )

    heads = (
        "recipe | layout | compiler GiB | formula GiB | model/compiled | sent, overlapped | "
        "s waiting (predicted) | s per step | MFU, all waiting | s to compile | MB of text"
    )
    return f"{_COMPILATION}\n{table(heads, rows())}"


def replan(facts: dict) -> Plan:
    """Predict anew, with the current formula, the plan in a JSON file of the folder `compiled`."""
    config, split = load_recipe(facts["recipe"]), Split(**facts["mesh"])
    name = facts["topology"].rpartition(" ")[2]
    model = dataclasses.replace(config.model, remat=facts["remat"])
    training = dataclasses.replace(
        config.training, accumulation=split.parts, batch_size=facts["batch"]
    )
    config = dataclasses.replace(config, model=model, training=training)
    return make_plan(config, parse_topology(name, split.replica), split)


def _plan(recipe: str, words: str, name: str, slices: int = 1) -> Plan:
    config, topology = load_recipe(f"{recipe}:{words}"), parse_topology(name, slices)
    return make_plan(config, topology, recipe_mesh(config, topology))


def _cells(found: Plan) -> tuple[str, ...]:
    return (
        f"{found.memory.total / GIB:.1f} ({found.free_fraction:.0%})",
        f"{found.seconds:.3g}",
        f"{found.mfu:.1%}",
        f"{found.seconds * found.steps / 86_400:.1f}",
        f"{found.chip_hours:,.0f}",
    )


def _joined(*words: str) -> str:
    return ",".join(filter(None, words))


def _title(recipe: str, stage: str) -> str:
    return f"{recipe}:{stage}" if stage else recipe
