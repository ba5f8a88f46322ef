"""`lidit tune`: search for the attention kernel's best tile sizes, which are stored."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from lidit_jax.commands.arguments import add_command, positive_int
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file, writable_file

_EXAMPLES = """\
  lidit tune attention                                    on a TPU: measured, for the 1B recipe
  lidit tune attention --head-width=64 --queries=4096     10B at 1024 px
  lidit tune attention --generation=v5p --head-width=64   without a TPU: estimated

The best tiles are stored in the cache ($LIDIT_CACHE, else ~/.cache/lidit) and used from then on for
attention of exactly these sizes. Without a TPU, tiles are ranked by the TPU compiler's schedule:
this needs pip install 'lidit-jax[tpu]' and Linux, takes some seconds per candidate, and never
replaces measured tiles. On GPUs there is nothing to tune: cuDNN chooses its own tiles.
"""


def add_parser(subparsers: Any) -> None:
    """Add `lidit tune`."""
    parser = add_command(
        subparsers, "tune", "search tile sizes for the attention kernel", _EXAMPLES, run
    )
    parser.add_argument("what", choices=("attention",), help="what to tune")
    parser.add_argument(
        "--generation", metavar="NAME", help="compile for v4, v5e, v5p, v6e or tpu7x, not this TPU"
    )
    parser.add_argument("--head-width", type=positive_int, default=72, metavar="K")
    parser.add_argument(
        "--queries", type=positive_int, default=4096, metavar="N", help="tokens per device"
    )
    parser.add_argument(
        "--keys", type=positive_int, metavar="S", help="default: as many, for self-attention"
    )
    parser.add_argument(
        "--tiles",
        action="append",
        metavar="N,S,S",
        help="tiles to compare (queries, keys, keys per product), repeatable; default: about 20",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all costs as JSON")
    parser.add_argument("--no-keep", action="store_true", help="do not store the best tiles")


def run(options: argparse.Namespace) -> int:
    """Print each measurement and store the best tiles."""
    with writable_file(options.json, "--json"):
        return _tune(options)


def _tune(options: argparse.Namespace) -> int:
    if options.generation:
        import os

        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    from lidit_jax.attention.tuned import Shape, save_tiles
    from lidit_jax.hardware.devices import tpu_generation
    from lidit_jax.planning.attention_tuning import SMALLEST_SLICE, candidates, rank

    device = jax.devices()[0]
    on_device = not options.generation
    generation = options.generation or tpu_generation(device.device_kind)
    if on_device and device.platform != "tpu":
        raise LiditError(
            f"lidit tune: this machine has no TPU, only {device.device_kind}: set --generation "
            f"({', '.join(SMALLEST_SLICE)}) to rank tiles by the compiler's schedule"
        )
    if generation not in SMALLEST_SLICE:
        raise LiditError(f"--generation={generation}: choose one of {', '.join(SMALLEST_SLICE)}")
    shape = Shape(generation, options.head_width, options.queries, options.keys or options.queries)
    tiles = [_tiles(text) for text in options.tiles or ()] or candidates(shape)
    unit = "us per head" if on_device else "cycles per head"
    found_by = "time" if on_device else "schedule"
    print(f"{shape.key}, forward and backward, by {found_by}")
    ranked = []
    for found in rank(shape, tiles, on_device=on_device):
        one = found.tiles
        known = found.cost < float("inf")
        cost = found.cost * (1e6 if on_device else 1)
        shown = f"{cost:12,.0f} {unit}" if known else "        does not compile"
        print(f"  queries {one.query:5d}  keys {one.key:5d} by {one.key_compute:5d}  {shown}")
        ranked.append(found)
    ranked.sort(key=lambda found: found.cost)
    best = ranked[0]
    some_fit = best.cost < float("inf")
    if some_fit:
        one = best.tiles
        print(f"best: queries {one.query}, keys {one.key} by {one.key_compute}")
        if not options.no_keep:
            file = save_tiles(shape, dataclasses.astuple(one), found_by)
            print(f"stored in {file}" if file else "not stored: measured tiles are kept")
    if options.json:
        rows = [dataclasses.asdict(found) for found in ranked]
        content = json.dumps({"shape": shape.key, "tiles": rows}, indent=2) + "\n"
        with atomic_file(options.json) as handle:
            handle.write(content.encode())
    if not some_fit:
        raise LiditError("none of these tiles fits into the core's memory: try smaller --tiles")
    return 0


def _tiles(text: str) -> Any:
    from lidit_jax.attention.tiles import LANES, Tiles

    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise LiditError(f"--tiles={text}: write queries, keys, keys per product: 1024,2048,512")
    tiles = Tiles(*map(int, parts))
    if any(n % LANES or not n for n in dataclasses.astuple(tiles)) or tiles.key % tiles.key_compute:
        raise LiditError(
            f"--tiles={text}: must be multiples of {LANES}, the third a divisor of the second"
        )
    return tiles
