"""`lidit eval geneval`, `compbench`, `dpg` and `prompts`: images and scores of suites."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lidit_jax.commands.arguments import (
    CHECKPOINT_HELP,
    add_command,
    add_encoder_option,
    guidance_scale,
    image_size,
    non_negative_int,
    positive_int,
)
from lidit_jax.commands.device_options import add_device_options, chosen_mesh
from lidit_jax.commands.self_test import warn_of_known_faults
from lidit_jax.errors import LiditError
from lidit_jax.io.output import writable_folder
from lidit_jax.io.paths import in_bucket, local_path, to_path

if TYPE_CHECKING:
    from lidit_jax.evaluation.suites.drawing_record import DrawingRecord
    from lidit_jax.evaluation.suites.suite import DrawingPlan, Item, Suite

_SETTINGS = ("sampler", "steps", "guidance")
_DRAWING = {"checkpoint": "--checkpoint", "encoders": "--encoder", "seed": "--seed"}
_DRAWING |= {name: f"--{name}" for name in ("size", *_SETTINGS, "tensor", "fsdp")}
"""Fields of options that --score does not read, and the options."""
_SCORING = {"name": "--name", "others": "--with"}
"""Fields of options that drawing does not read, and the options."""

_DRAWING_HELP = """\
Images that are there are kept: after an interruption the same command draws the rest. Start it
as often as you like, on one host or several that share the folder (or a bucket): the launches
divide the work. An image depends on --seed, its prompt and its index alone. {out}/lidit records
the model, the prompts and the settings, and images of others are refused.
"""

_SCORED_EXAMPLES = (
    """\
  lidit eval {name} --checkpoint=runs/mine --benchmark={source} --out=runs/mine-{name}
  lidit eval {name} --checkpoint=demo --benchmark={source} --out=try --limit=2
  {scorer}
  lidit eval {name} --benchmark={source} --out=runs/mine-{name} --score={results}

The first command draws, in the layout that the suite's official scorer reads. The prompts are in
{repository}. Leave out --benchmark if
$LIDIT_BENCHMARKS/{folder} holds them. --limit draws the first prompts of each task only,
which the records and tables then say. After the official scorer (third line, in its repository;
the first command prints it with absolute paths) the last one prints table 1 of the paper with the
model's row and bootstrap intervals over prompts, and writes scores.json, .md and .png to
{out}/lidit. Results that are missing, cut off or of other prompts are refused.
--with=OTHER/lidit/scores.json adds the columns of another suite.

"""
    + _DRAWING_HELP
)

_PROMPTS_EXAMPLES = (
    """\
  lidit eval prompts prompts.txt --checkpoint=runs/mine --out=runs/mine-prompts
  lidit eval prompts benchmark.jsonl --checkpoint=demo --out=try --images-per-prompt=1 --limit=8

The file holds one prompt per line, or JSON lines with "prompt". The images are LINE/IMAGE.png,
counted from 0, and images.jsonl lists them, each with its prompt and its line of the file.

"""
    + _DRAWING_HELP
)

_SUITES = {
    "geneval": {
        "summary": "draw for GenEval, or compare its results with the paper's table 1",
        "source": "geneval/prompts",
        "repository": "github.com/djghosh13/geneval, prompts/",
        "folder": "geneval",
        "results": "runs/mine-geneval/results.jsonl",
        "scorer": "python evaluation/evaluate_images.py /path/to/runs/mine-geneval "
        "--outfile /path/to/runs/mine-geneval/results.jsonl --model-path DETECTOR_FOLDER",
    },
    "compbench": {
        "summary": "draw for T2I-CompBench, or compare its results with the paper's table 1",
        "source": "T2I-CompBench/examples/dataset",
        "repository": "github.com/Karine-Huang/T2I-CompBench, examples/dataset/",
        "folder": "t2i_compbench",
        "results": "runs/mine-compbench",
        "scorer": "(cd BLIPvqa_eval && "
        "python BLIP_vqa.py --out_dir=/path/to/runs/mine-compbench/color)",
    },
    "dpg": {
        "summary": "draw for DPG-Bench, or compare its results with the paper's table 1",
        "source": "ELLA/dpg_bench/prompts",
        "repository": "github.com/TencentQQGYLab/ELLA, dpg_bench/prompts/",
        "folder": "dpg_bench",
        "results": "runs/mine-dpg/dpg-bench_TIME_results.txt",
        "scorer": "PIC_NUM=4 bash dpg_bench/dist_eval.sh /path/to/runs/mine-dpg 256",
    },
}


def add_parsers(benchmarks: Any) -> None:
    """Add the suites to `lidit eval`."""
    for name, texts in _SUITES.items():
        examples = _SCORED_EXAMPLES.format(name=name, out="DIR", **texts)
        parser = add_command(benchmarks, name, texts["summary"], examples, run)
        parser.add_argument(
            "--benchmark",
            type=_local,
            metavar="FOLDER",
            help=f"the official prompts (default: $LIDIT_BENCHMARKS/{texts['folder']})",
        )
        _add_options(parser)
        group = parser.add_argument_group("scores")
        group.add_argument(
            "--score",
            type=_local,
            metavar="RESULTS",
            help=f"what the official scorer wrote, such as {texts['results']}; draws nothing",
        )
        group.add_argument(
            "--name", metavar="TEXT", help="the model in tables (default: --checkpoint's text)"
        )
        group.add_argument(
            "--with",
            action="append",
            type=_local,
            default=[],
            metavar="FILE",
            dest="others",
            help="scores.json of the same model on another suite; repeatable",
        )
    parser = add_command(
        benchmarks,
        "prompts",
        "draw the prompts of a file, for a scorer of your own",
        _PROMPTS_EXAMPLES.format(out="DIR"),
        run,
    )
    parser.add_argument(
        "benchmark", type=_local, metavar="FILE", help="one prompt per line, or .jsonl"
    )
    _add_options(parser)
    parser.set_defaults(score=None, name=None, others=[])


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--checkpoint", metavar="PATH|NAME", help=CHECKPOINT_HELP)
    add_encoder_option(parser)
    add("--out", required=True, type=_folder, metavar="DIR", help="folder of the images")
    add(
        "--images-per-prompt",
        type=positive_int,
        metavar="N",
        help="images per prompt (default: the protocol's; 4 for a file of prompts)",
    )
    add("--limit", type=positive_int, metavar="N", help="first prompts of each task (default: all)")
    add("--seed", type=non_negative_int, metavar="K", help="seed of the noise (default: 0)")
    add("--size", type=image_size, metavar="PX|WxH", help="of an image (default: as in training)")
    own = "(default: the checkpoint's)"
    add("--sampler", metavar="NAME", help=f"euler, heun, unipc, ... {own}")
    add("--steps", type=positive_int, metavar="N", help=f"denoising steps {own}")
    add("--guidance", type=guidance_scale, metavar="S", help=f"guidance scale {own}")
    add_device_options(parser)


def _local(text: str) -> Path:
    """Return a local path; shells do not expand the ~ of --option=~/FOLDER."""
    return local_path(os.path.expanduser(text))


def _folder(text: str) -> Path:
    return to_path(os.path.expanduser(text))


def run(options: argparse.Namespace) -> int:
    """Draw the images of a suite, or print the scores of its results."""
    from lidit_jax.evaluation.suites.compbench import CompBench
    from lidit_jax.evaluation.suites.dpg import Dpg
    from lidit_jax.evaluation.suites.geneval import GenEval
    from lidit_jax.evaluation.suites.own_prompts import OwnPrompts
    from lidit_jax.evaluation.suites.prompt_files import prompts_of
    from lidit_jax.evaluation.suites.scoring import Expected, score_results
    from lidit_jax.evaluation.suites.suite import ScoredSuite

    suites = {suite.name: suite for suite in (GenEval(), CompBench(), Dpg(), OwnPrompts())}
    suite = suites[options.benchmark_name]
    if options.score is None:
        if named := _given(options, _SCORING):
            raise LiditError(f"without --score nothing is scored: leave out {named}")
        if not options.checkpoint:
            raise LiditError(
                "--checkpoint is missing: name a workdir, an exported folder, or 'demo'"
            )
        return _draw(suite, prompts_of(suite, options.benchmark), options)
    if named := _given(options, _DRAWING):
        raise LiditError(f"--score reads results and draws nothing: leave out {named}")
    assert isinstance(suite, ScoredSuite)  # the others have no --score
    items = prompts_of(suite, options.benchmark)
    expected = Expected(options.limit, options.images_per_prompt, options.name)
    with writable_folder(options.out, "--out"):
        text = score_results(suite, items, options.score, options.out, expected, options.others)
    print(text)
    print(f"{options.out / 'lidit'}: scores.json, scores.md, scores.png")
    return 0


def _given(options: argparse.Namespace, names: Mapping[str, str]) -> str:
    """Return those of some options that were given, separated by commas."""
    given = (shown for name, shown in names.items() if getattr(options, name) not in (None, []))
    return ", ".join(given)


def _draw(suite: Suite, items: list[Item], options: argparse.Namespace) -> int:
    from lidit_jax.evaluation.suites.suite import DrawingPlan
    from lidit_jax.parallel.distributed import join_processes
    from lidit_jax.training.preemption import Terminated, raise_on_sigterm

    plan = DrawingPlan(
        items=items,
        limit=options.limit,
        images_per_prompt=options.images_per_prompt or suite.images_per_prompt,
        seed=options.seed or 0,
        size=options.size,
        settings={name: getattr(options, name) for name in _SETTINGS},
    )
    suite.pictures(items[0], plan.images_per_prompt)  # refuses a number before the model loads
    if suite.square and plan.size and plan.size[0] != plan.size[1]:
        raise LiditError(f"--size: the scorer of {suite.title} reads square images: give one side")
    join_processes()
    try:
        # Processes divide the work by files, without collectives.
        with raise_on_sigterm(independent=True), writable_folder(options.out, "--out"):
            record = _draw_here(suite, plan, options)
    except Terminated:
        print("stopped; run the same command to go on")
        return 0
    if _is_main():
        print("\n".join(_told(suite, record, options.out)), flush=True)
    return 0


def _draw_here(suite: Suite, plan: DrawingPlan, options: argparse.Namespace) -> DrawingRecord:
    """Draw this process's part, with the models on its devices."""
    # Their imports begin to use the devices, after which processes cannot be joined.
    from lidit_jax.evaluation.suites.drawing import draw_suite
    from lidit_jax.io.progress import progress_bar
    from lidit_jax.sampling.pipeline import Pipeline

    warn_of_known_faults()
    pipeline = Pipeline.from_checkpoint(
        options.checkpoint, mesh=chosen_mesh(options), encoders=dict(options.encoders)
    )
    with progress_bar("batches of 16 images") if _is_main() else nullcontext() as progress:
        return draw_suite(suite, plan, pipeline, options.checkpoint, options.out, progress=progress)


def _is_main() -> bool:
    import jax

    return jax.process_index() == 0


def _told(suite: Suite, record: DrawingRecord, out: Path) -> list[str]:
    """Return what was drawn, and the commands that score it."""
    from lidit_jax.evaluation.suites.suite import ScoredSuite

    part = "" if record.limit is None else f" (--limit={record.limit}, of {record.prompts})"
    lines = [f"{out}: {record.images_per_prompt} images of {record.drawn_prompts} prompts{part}"]
    if isinstance(suite, ScoredSuite):
        lines.append("score them with the official scorer, in its repository:")
        place = os.fspath(out if in_bucket(out) else out.absolute())
        commands = suite.scorer_commands(place, record.size[0], record.images_per_prompt)
        lines += [f"  {command}" for command in commands]
    return lines
