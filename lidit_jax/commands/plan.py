"""`lidit plan`: memory, speed and cost estimates of a run on TPU slices or GPU nodes."""

from __future__ import annotations

import argparse
import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lidit_jax.commands.arguments import add_command, positive_int, price
from lidit_jax.commands.recipe import checked_recipe
from lidit_jax.errors import LiditError
from lidit_jax.io.output import writable_file

if TYPE_CHECKING:
    from lidit_jax.config.schema import Config
    from lidit_jax.planning.plan import Plan

_EXAMPLES = """\
  lidit plan --config=configs/lidit_10b.py:1024px --topology=v5p:8x8x16 --search
  lidit plan --config=lidit_10b:v5e:16x16,2slices --topology=v5e:16x16 --slices=2
  lidit plan --config=lidit_1b --topology=v5e:16x16 --mesh=fsdp=64,tensor=2 --json=plan.json
  lidit plan --config=lidit_10b --topology=h100:8x32 --search --price-per-chip-hour=2.50
  lidit plan --config=lidit_1b --topology=v5p-256 --images=2M
  lidit plan --config=lidit_1b --topology=v5e:4x4 --config.training.batch_size=64 --compile
  lidit plan --all-recipes --out=docs

Memory, time and cost are predicted by a formula, on any machine. Every prediction is printed with
the formula's error on published steps that its constants were not fitted to. --compile adds figures
of the TPU compiler, which needs pip install 'lidit-jax[tpu]' and Linux, but no TPU. For GPUs there
is only the formula.
"""


def add_parser(subparsers: Any) -> None:
    """Add `lidit plan`."""
    summary = "predict memory, time and cost of a run on TPUs or GPUs"
    parser = add_command(subparsers, "plan", summary, _EXAMPLES, run)
    parser.add_argument("--config", metavar="RECIPE", help="as for lidit train")
    parser.add_argument(
        "--topology",
        metavar="NAME",
        help="v5p:8x8x16 or v5p-2048 for a TPU slice, h100:8x4 for 4 nodes of 8, 8xh100 for one",
    )
    parser.add_argument(
        "--slices",
        type=positive_int,
        default=1,
        metavar="N",
        help="slices joined by the data-center network",
    )
    parser.add_argument(
        "--mesh",
        metavar="AXIS=SIZE,...",
        help="default: the recipe's, else the fastest size of fsdp",
    )
    parser.add_argument(
        "--search", action="store_true", help="compare meshes, remat policies and accumulation"
    )
    parser.add_argument(
        "--online", action="store_true", help="encode captions while training, not before"
    )
    parser.add_argument(
        "--images",
        type=positive_int,
        default=30_000_000,
        metavar="N",
        help="size of the data set, for its storage (2M, 2e6; default: 30M)",
    )
    parser.add_argument(
        "--price-per-chip-hour", type=price, default=0.0, metavar="X", help="to predict the cost"
    )
    parser.add_argument(
        "--compile", action="store_true", help="add the TPU compiler's figures to the formula's"
    )
    parser.add_argument(
        "--hlo",
        type=Path,
        metavar="FILE",
        help="write the text of the program that --compile compiles",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan as JSON")
    parser.add_argument("--png", type=Path, metavar="FILE", help="plot the memory by purpose")
    parser.add_argument(
        "--all-recipes", action="store_true", help="plan every recipe on all of its topologies"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for --all-recipes")
    parser.add_argument("--config.FIELD", metavar="VALUE", help="override a field of the recipe")


def run(options: argparse.Namespace) -> int:
    """Print the plan and return the exit status; 1 when it does not fit."""
    import os

    # Nothing here runs on an accelerator, and detecting one takes seconds.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if options.hlo and not options.compile:
        raise LiditError("--hlo writes the program that --compile compiles: add --compile")
    if options.search and options.mesh:
        raise LiditError("--search compares all meshes: leave out --mesh or --search")
    if options.out and not options.all_recipes:
        raise LiditError("--out is for --all-recipes: write a single plan with --json and --png")
    if options.all_recipes:
        if options.config or options.topology:
            raise LiditError("--all-recipes plans all recipes: leave out --config and --topology")
        return _write_recipe_plans(options.out)
    if not options.config or not options.topology:
        raise LiditError("lidit plan needs --config and --topology (see: lidit plan --help)")
    with ExitStack() as outputs:
        # Checked before compiling, which takes minutes.
        outputs.enter_context(writable_file(options.json, "--json"))
        outputs.enter_context(writable_file(options.png, "--png", ".png"))
        outputs.enter_context(writable_file(options.hlo, "--hlo"))
        options.topology = _standard_topology(options.topology)
        return _write_plan(options)


def _standard_topology(text: str) -> str:
    """Return the topology by its sides; print how another name was interpreted."""
    from lidit_jax.hardware.cloud_names import describe_topology_name, standard_name

    name = standard_name(text)
    if name != text:
        print(describe_topology_name(text, name))
    return name


def _write_plan(options: argparse.Namespace) -> int:
    from lidit_jax.planning.frozen_costs import latent_cost, text_cost
    from lidit_jax.planning.plan_report import describe, draw, print_plan, report
    from lidit_jax.planning.plan_search import nearest_that_fits, with_heads_of_128

    config, chosen = _plan(options)
    wider = with_heads_of_128(config, chosen, searching=options.search)
    compiled = refusal = None
    if options.compile:
        from lidit_jax.planning.compiled_plan import CompilerRefusalError, compile_plan

        try:
            compiled = compile_plan(config, chosen, options.hlo)
        except CompilerRefusalError as error:
            refusal = error
    nearest = nearest_that_fits(config, chosen) if refusal or chosen.free < 0 else None
    facts = {"recipe": options.config} | report(
        *(chosen, options.price_per_chip_hour, compiled, nearest, wider),
        frozen={
            "text": text_cost(chosen, options.images),
            "latents": latent_cost(config, chosen, options.images),
        },
        refused=refusal is not None,
    )
    print_plan(chosen, facts)
    if layout := _unused_layout(options):
        print(f"This recipe has a layout for {options.topology}: --config={layout}")
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    if options.png:
        draw(chosen, options.png)
    if refusal:
        remedy = f"try {describe(nearest)}" if nearest else "no larger slice exists"
        raise LiditError(f"{refusal}: {remedy}") from refusal
    return 0 if facts["fits"] else 1


def _unused_layout(options: argparse.Namespace) -> str:
    """Return the recipe with its own layout for this topology, if the options name none."""
    from lidit_jax.config.load import recipe_choices
    from lidit_jax.config.recipe_choices import SLICES

    name, _, words = options.config.partition(":")
    chosen = [word for word in words.split(",") if word]
    placements = recipe_choices(name).placements
    several = [word for word, count in SLICES.items() if count == options.slices]
    asked_for = options.search or options.mesh or placements.keys() & set(chosen)
    known = options.topology in placements and (several or options.slices == 1)
    if asked_for or not known:
        return ""
    return f"{name}:{','.join([*chosen, options.topology, *several])}"


def _plan(options: argparse.Namespace) -> tuple[Config, Plan]:
    """Return the configuration, with the plan's remat policy and accumulation, and the plan."""
    from lidit_jax.hardware.topologies import parse_topology
    from lidit_jax.planning.plan import make_plan
    from lidit_jax.planning.plan_mesh import parse_mesh, recipe_mesh
    from lidit_jax.planning.plan_report import print_ranking
    from lidit_jax.planning.plan_search import search

    config = checked_recipe(options)
    if options.online:
        data = dataclasses.replace(config.data, text_features="online")
        config = dataclasses.replace(config, data=data)
    topology = parse_topology(options.topology, options.slices)
    if options.search:
        ranked = search(config, topology)
        print_ranking(ranked[:10])
        chosen = ranked[0]
    else:
        split = (
            parse_mesh(options.mesh, config, topology)
            if options.mesh
            else recipe_mesh(config, topology)
        )
        chosen = make_plan(config, topology, split)
    model = dataclasses.replace(config.model, remat=chosen.remat)
    training = dataclasses.replace(config.training, accumulation=chosen.split.parts)
    return dataclasses.replace(config, model=model, training=training), chosen


def _write_recipe_plans(folder: Path | None) -> int:
    if folder is None or not folder.is_dir():
        raise LiditError(f"--out={folder}: --all-recipes needs an existing folder")
    from lidit_jax.planning.recipe_plans import write_recipe_plans

    for file in write_recipe_plans(folder):
        print(file)
    return 0
