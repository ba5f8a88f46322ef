"""`lidit eval`: generation of benchmark images, and their scores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lidit_jax.commands import eval_suites
from lidit_jax.commands.arguments import (
    CHECKPOINT_HELP,
    add_command,
    add_encoder_option,
    guidance_scale,
    non_negative_int,
    positive_int,
)
from lidit_jax.commands.self_test import warn_of_known_faults
from lidit_jax.errors import LiditError
from lidit_jax.io.output import writable_folder
from lidit_jax.io.paths import to_path

_SCENES_EXAMPLES = """\
  lidit eval scenes --checkpoint=demo
  lidit eval scenes --checkpoint=runs/demo --per-task=32 --out=runs/demo-scores
"""

_EXAMPLES = (
    _SCENES_EXAMPLES
    + """\
  lidit eval geneval --checkpoint=runs/demo --benchmark=geneval/prompts --out=runs/demo-geneval
  lidit eval prompts my-prompts.txt --checkpoint=runs/demo --out=runs/demo-prompts
"""
)

_SAMPLERS_EXAMPLES = """\
  lidit eval samplers --checkpoint=demo --out=runs/samplers
  lidit eval samplers --checkpoint=demo --samplers=euler,unipc --steps=4,8 --per-task=2

Every row uses the same prompts and seeds. The files are written after every row, and the same
command continues an interrupted comparison.
"""


def add_parser(subparsers: Any) -> None:
    """Add `lidit eval` and its benchmarks."""
    parser = add_command(
        subparsers, "eval", "generate the images of a benchmark and score them", _EXAMPLES, None
    )
    benchmarks = parser.add_subparsers(
        dest="benchmark_name", metavar="BENCHMARK", title="benchmarks", required=True
    )
    scenes = add_command(
        benchmarks,
        "scenes",
        "score color, shape, count, position and size on scenes with known truth",
        _SCENES_EXAMPLES,
        run,
    )
    scenes.add_argument("--checkpoint", required=True, metavar="PATH|NAME", help=CHECKPOINT_HELP)
    add_encoder_option(scenes)
    scenes.add_argument(
        "--out",
        type=to_path,
        metavar="DIR",
        help="folder for scores.json and hits_and_misses.png, which are overwritten (default: "
        "runs/scenes/NAME-HASH, from the checkpoint's name and the hash of its weights)",
    )
    scenes.add_argument(
        "--per-task",
        type=positive_int,
        default=16,
        metavar="N",
        help="prompts per task (default: %(default)s)",
    )
    scenes.add_argument(
        "--seed", type=non_negative_int, default=0, metavar="K", help="of prompts and noise"
    )
    own = "(default: the checkpoint's)"
    scenes.add_argument("--sampler", metavar="NAME", help=f"euler, heun, unipc, ... {own}")
    scenes.add_argument("--steps", type=positive_int, metavar="N", help=f"denoising steps {own}")
    scenes.add_argument(
        "--guidance", type=guidance_scale, metavar="S", help=f"guidance scale {own}"
    )
    scenes.add_argument(
        "--batch-size",
        type=positive_int,
        default=16,
        metavar="B",
        help="images per batch (default: %(default)s)",
    )
    _add_samplers(benchmarks)
    eval_suites.add_parsers(benchmarks)


def _add_samplers(benchmarks: Any) -> None:
    parser = add_command(
        benchmarks,
        "samplers",
        "compare samplers, steps and step caching, by score on scenes and by time",
        _SAMPLERS_EXAMPLES,
        run_samplers,
    )
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH|NAME", help=CHECKPOINT_HELP)
    add_encoder_option(parser)
    add(
        "--out",
        type=to_path,
        default=Path("runs/samplers"),
        metavar="DIR",
        help="folder for samplers.json, .md and .png (default: %(default)s)",
    )
    add("--samplers", metavar="A,B", help="(default: all that the checkpoint supports)")
    add("--steps", default="4,8,16,32,64", metavar="N,M", help="(default: %(default)s)")
    add(
        "--cache-intervals",
        default="1,2,3,4",
        metavar="N,M",
        help="intervals of step caching, with the checkpoint's sampler and steps "
        "(default: %(default)s)",
    )
    add("--spacing", metavar="NAME", help="spacing of the steps, for all samplers")
    add("--guidance", type=guidance_scale, metavar="S", help="guidance scale")
    add(
        "--per-task",
        type=positive_int,
        default=16,
        metavar="N",
        help="prompts per task (default: %(default)s)",
    )
    add("--seed", type=non_negative_int, default=0, metavar="K", help="of prompts and noise")
    add("--batch-size", type=positive_int, default=16, metavar="B", help="images per batch")


def run_samplers(options: argparse.Namespace) -> int:
    """Generate with every sampler and print the tables."""
    steps = _numbers("--steps", options.steps)
    cache_intervals = _numbers("--cache-intervals", options.cache_intervals)
    with writable_folder(options.out, "--out"):
        from lidit_jax.evaluation.sampler_report import markdown
        from lidit_jax.evaluation.samplers import compare_samplers

        warn_of_known_faults()
        report = compare_samplers(
            options.checkpoint,
            options.out,
            samplers=options.samplers.split(",") if options.samplers else (),
            steps=steps,
            cache_intervals=cache_intervals,
            per_task=options.per_task,
            seed=options.seed,
            batch_size=options.batch_size,
            encoders=dict(options.encoders),
            settings={"spacing": options.spacing, "guidance": options.guidance},
        )
    print(markdown(report["rows"], report["usual"]), end="")
    return 0


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [positive_int(part) for part in text.split(",")]
    except argparse.ArgumentTypeError as error:
        raise LiditError(f"{option}: {error}") from error


def run(options: argparse.Namespace) -> int:
    """Generate and score images, and print the table."""
    from lidit_jax.evaluation.scenes import RESULTS, evaluate

    with writable_folder(options.out or RESULTS, "--out"):
        warn_of_known_faults()
        evaluate(
            options.checkpoint,
            options.out,
            per_task=options.per_task,
            seed=options.seed,
            settings={name: getattr(options, name) for name in ("sampler", "steps", "guidance")},
            batch_size=options.batch_size,
            encoders=dict(options.encoders),
        )
    return 0
