"""`lidit bench`: times attention, train step, sampling or encoding against PyTorch, or all."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

from lidit_jax.benchmarks import KINDS
from lidit_jax.commands import bench_all
from lidit_jax.commands.arguments import add_command, positive_int
from lidit_jax.commands.recipe import checked_recipe
from lidit_jax.config.values import ComputeType
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file, writable_file

_EXAMPLES = """\
  lidit bench attention --config=lidit_10b --config.data.image_size=1024 --batch=4
  lidit bench step --config=lidit_1b --batch=64 --json=step.json
  lidit bench sample --checkpoint=demo --batch=4
  lidit bench encode --encoder=smollm2 --tokens=100
  lidit bench data --photos=1000 --batch=32 --workers=2 --count=5
  lidit bench all --minutes=4 --out=results --then-train=demo --train-minutes=4

It runs on a TPU or GPU if there is one, else on the CPU. Every candidate runs in its own process,
and their rounds are interleaved, so that changes of the machine's speed affect all of them.
"relative time" is the median over the rounds of the time divided by that of the first row. PyTorch
is included if it is installed (pip install 'lidit-jax[torch]'). On a TPU, which only one process
can use, candidates run one after the other, without PyTorch, which would run on the CPU.

The first call of `lidit bench all` spends most of its time on compiling: on a GPU it takes about
eight minutes. The most important parts come first. Compiled programs are cached: a second call with
the same --out keeps finished parts and continues where the first ended. --only=WORD repeats the
parts whose name contains WORD (attention, step, tests, sample, encode, doctor).
"""


def add_parser(subparsers: Any) -> None:
    """Add `lidit bench`."""
    summary = "time attention, train step, sampling, encoding or all of them, against PyTorch"
    parser = add_command(subparsers, "bench", summary, _EXAMPLES, run)
    parser.add_argument("what", choices=(*KINDS, "all"))
    parser.add_argument("--config", default="demo", metavar="RECIPE", help="sets the shapes")
    parser.add_argument("--batch", type=positive_int, default=8, metavar="N")
    parser.add_argument(
        "--dtype",
        choices=get_args(ComputeType),
        help="default: bfloat16 on accelerators, float32 on CPUs",
    )
    parser.add_argument("--checkpoint", default="demo", metavar="PATH", help="for sample")
    parser.add_argument("--encoder", default="smollm2", metavar="SOURCE", help="for encode")
    parser.add_argument("--tokens", type=positive_int, default=100, metavar="N", help="per prompt")
    parser.add_argument(
        "--photos",
        type=positive_int,
        default=1000,
        metavar="N",
        help="number of JPEGs to create for data",
    )
    parser.add_argument("--workers", type=positive_int, default=2, metavar="N", help="for data")
    parser.add_argument("--rounds", type=positive_int, default=5, metavar="N")
    parser.add_argument(
        "--count", type=positive_int, default=3, metavar="N", help="repetitions per round"
    )
    parser.add_argument("--warmup", type=positive_int, default=2, metavar="N")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads")
    parser.add_argument("--no-torch", action="store_true", help="skip PyTorch")
    parser.add_argument(
        "--only",
        metavar="WORD",
        help="only candidates (with all: parts) whose name contains WORD",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--config.FIELD", metavar="VALUE", help="override a field of the recipe")
    bench_all.add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print the table and return the exit status; 1 when a candidate failed."""
    import jax

    from lidit_jax.benchmarks.runner import print_rows

    # This process must not hold the TPU, or GPU memory, that the candidates need.
    jax.config.update("jax_platforms", "cpu")
    if options.what == "all":
        return bench_all.run(options)
    with writable_file(options.json, "--json"):
        facts = _run_candidates(options)
        print_rows(facts["rows"])
        if options.json:
            with atomic_file(options.json) as handle:
                handle.write((json.dumps(facts, indent=2) + "\n").encode())
    return 1 if any("error" in row for row in facts["rows"]) else 0


def _run_candidates(options: argparse.Namespace) -> dict[str, Any]:
    from lidit_jax.benchmarks.runner import default_platform, run_candidates
    from lidit_jax.benchmarks.workload import Settings

    # Mistakes are reported here, once, rather than in every process.
    checked_recipe(options)
    if options.what == "sample":
        _check_flow(options.checkpoint)
    platform = default_platform()
    torch = not options.no_torch and _has_torch()
    if torch and platform == "tpu":
        print("PyTorch is skipped: it does not run on TPUs", file=sys.stderr)
        torch = False
    with tempfile.TemporaryDirectory() as folder:
        exported = ""
        if options.what == "sample" and torch:
            exported = _export(options.checkpoint, Path(folder))
        settings = Settings(
            kind=options.what,
            config=options.config,
            overrides=tuple(options.overrides),
            batch=options.batch,
            dtype=options.dtype or ("float32" if platform == "cpu" else "bfloat16"),
            threads=options.threads or 0,
            checkpoint=options.checkpoint,
            exported=exported,
            results=folder if options.what == "sample" else "",
            encoder=options.encoder,
            tokens=options.tokens,
            photos=_photos(options.photos) if options.what == "data" else "",
            workers=options.workers,
        )
        return run_candidates(
            settings,
            rounds=options.rounds,
            count=options.count,
            warmup=options.warmup,
            torch=torch,
            only=options.only or "",
            alone=platform == "tpu",
        )


def _photos(count: int) -> str:
    """Return the folder of the photos of `data`, which are made once and kept in the cache."""
    from lidit_jax.benchmarks.photo_formats import prepare_photos
    from lidit_jax.io.paths import cache_dir

    folder = cache_dir() / "benchmarks" / f"photos-{count}"
    prepare_photos(folder, count)
    return str(folder)


def _check_flow(checkpoint: str) -> None:
    """Check that the checkpoint is a flow, which all candidates sample with Euler's method."""
    from lidit_jax.checkpoints.opener import open_model

    config = open_model(checkpoint).config
    if config.training.task != "lidit" or config.diffusion.process != "flow":
        raise LiditError(
            f"lidit bench sample: {checkpoint} is not a text-to-image flow model: name one, such "
            "as 'demo'"
        )


def _has_torch() -> bool:
    import importlib.util

    return importlib.util.find_spec("torch") is not None


def _export(checkpoint: str, folder: Path) -> str:
    from lidit_jax.checkpoints.opener import open_model
    from lidit_jax.pytorch.export import export_torch

    out = folder / "torch"
    try:
        export_torch(open_model(checkpoint), out)
    except LiditError as error:
        raise LiditError(
            f"lidit bench sample: cannot convert {checkpoint} to PyTorch ({error}): use --no-torch"
        ) from error
    return str(out)
