"""`lidit plan`: what a run would need on a TPU pod, how fast it could be, and its cost."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from lidit_jax.commands.arguments import add_command, positive_int

_EXAMPLES = """\
  lidit plan --config=configs/lidit_10b.py --topology=v5p:8x8x16
  lidit plan --config=lidit_1b --topology=v5e:16x16 --mesh=fsdp=64,tensor=2 --json=plan.json
  lidit plan --config=lidit_10b --topology=v5p:8x8x16 --search --price-per-chip-hour=4.20
  lidit plan --config=lidit_1b --topology=v5e:4x4 --config.training.batch_size=64 --compile

Memory, time and cost are predicted by formula on any machine; published runs are predicted beside
them, and their errors printed. --compile asks the TPU compiler too, which needs
pip install 'lidit-jax[tpu]' and Linux, but no TPU.
"""


def add_parser(subparsers: Any) -> None:
    """Adds `lidit plan`."""
    summary = "predict memory, time and cost of a run on a TPU pod"
    parser = add_command(subparsers, "plan", summary, _EXAMPLES, run)
    parser.add_argument("--config", required=True, metavar="RECIPE", help="see lidit train")
    parser.add_argument(
        "--topology", required=True, metavar="NAME", help="a TPU slice, such as v5p:8x8x16"
    )
    parser.add_argument(
        "--slices", type=positive_int, default=1, metavar="N", help="slices joined by network"
    )
    parser.add_argument(
        "--mesh", metavar="AXIS=SIZE,...", help="default: all chips over fsdp; data takes the rest"
    )
    parser.add_argument(
        "--search", action="store_true", help="try meshes, remat policies and parts of the batch"
    )
    parser.add_argument(
        "--online", action="store_true", help="encode captions during training, not before"
    )
    parser.add_argument(
        "--images", type=positive_int, default=30_000_000, metavar="N", help="for the storage"
    )
    parser.add_argument(
        "--price-per-chip-hour", type=float, default=0.0, metavar="X", help="for the cost"
    )
    parser.add_argument(
        "--compile", action="store_true", help="the TPU compiler's figures beside the formula's"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan as JSON")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the memory by owner")
    parser.add_argument("--config.FIELD", metavar="VALUE", help="override a field of the recipe")


def run(options: argparse.Namespace) -> int:
    """Prints the plan; 1 when it does not fit."""
    import os

    # Nothing here runs on an accelerator, and looking for one takes seconds.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from lidit_jax.parallel import plan as plans
    from lidit_jax.parallel.plan_report import draw, print_plan, print_ranking, report
    from lidit_jax.parallel.topologies import parse_topology
    from lidit_jax.recipes import load_recipe

    config = load_recipe(options.config, options.overrides)
    topology = parse_topology(options.topology, options.slices)
    if options.search:
        ranked = plans.search(config, topology, online=options.online)
        print_ranking(ranked[:10])
        chosen = ranked[0]
        model = dataclasses.replace(config.model, remat=chosen.remat)
        training = dataclasses.replace(config.training, accumulation=chosen.split.parts)
        config = dataclasses.replace(config, model=model, training=training)
    else:
        mesh = options.mesh or plans.default_mesh(config, topology)
        split = plans.parse_mesh(mesh, config, topology)
        chosen = plans.plan(config, topology, split, online=options.online)
    compiled = _compile(config, chosen) if options.compile else None
    facts = report(chosen, options.images, options.price_per_chip_hour, compiled)
    print_plan(chosen, facts)
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    if options.png:
        draw(chosen, options.png)
    return 0 if chosen.free >= 0 else 1


def _compile(config: Any, plan: Any) -> float:
    """Bytes a chip by the compiler, arguments and temporaries."""
    from lidit_jax.config import MeshConfig
    from lidit_jax.parallel.ahead_of_time import lower_train_step, topology_devices
    from lidit_jax.parallel.mesh import AXES, make_mesh
    from lidit_jax.parallel.plan import image_tokens

    one_slice = dataclasses.replace(plan.topology, slices=1)
    devices = topology_devices(one_slice.name, plan.topology.slices)
    sizes = {axis: getattr(plan.split, axis) for axis in AXES}
    # A chip of some generations is several devices; the copies of the model take them.
    sizes["data"] *= len(devices) // plan.topology.chips
    side = round(image_tokens(config) ** 0.5) * config.model.patch
    latent = (side, side, config.vae.channels)
    mesh = make_mesh(MeshConfig(**sizes), devices)
    lowered = lower_train_step(config, mesh, latent, plan.text.streams)
    memory = lowered.compile().memory_analysis()
    return float(memory.argument_size_in_bytes + memory.temp_size_in_bytes)
