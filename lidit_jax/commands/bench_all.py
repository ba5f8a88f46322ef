"""`lidit bench all`: all benchmarks by priority, within minutes, written to one page."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

from lidit_jax.commands.arguments import minutes
from lidit_jax.errors import LiditError
from lidit_jax.io.output import writable_folder

_TRAIN_RESERVE = 5.0
"""Seconds before its time limit at which the training part stops."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `lidit bench all`."""
    group = parser.add_argument_group("lidit bench all")
    group.add_argument(
        "--minutes", type=minutes, default=4.0, metavar="M", help="time limit of all parts"
    )
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for results.md and results.json"
    )
    group.add_argument("--tiny", action="store_true", help="tiny sizes, to test it on a CPU")
    group.add_argument("--then-train", metavar="RECIPE", help="train a recipe afterwards, in DIR")
    group.add_argument("--train-minutes", type=minutes, default=4.0, metavar="M")


def run(options: argparse.Namespace) -> int:
    """Measure and write the page; return 1 when a part failed or did not fit the time limit."""
    if options.out is None:
        raise LiditError("lidit bench all writes a page: name its folder with --out=DIR")
    if options.then_train:
        from lidit_jax.config.load import load_recipe

        load_recipe(options.then_train, options.overrides)
    elif options.overrides:
        raise LiditError("--config.FIELD of lidit bench all is for --then-train=RECIPE")
    with writable_folder(options.out, "--out"):
        runner = _measure(options)
        if options.then_train:
            _train(options, runner)
        runner.write()
    print(f"{options.out / 'results.md'}")
    return 0 if all(row["status"] == "done" for row in runner.page["parts"]) else 1


def _measure(options: argparse.Namespace) -> Any:
    from lidit_jax.benchmarks.part_runner import PartRunner, load_previous_results
    from lidit_jax.benchmarks.parts import device_part, ordered_parts
    from lidit_jax.benchmarks.runner import versions

    about = {"python": platform.python_version(), "versions": versions()}
    about |= {"system": platform.platform(), "minutes": options.minutes, "tiny": options.tiny}
    before = load_previous_results(options.out)
    runner = PartRunner(options.out, 60 * options.minutes, about)
    found = runner.run(device_part(tiny=options.tiny))
    runner.tell(**found)
    tests = Path(__file__).parents[2] / "tests"
    parts = ordered_parts(found, tests if tests.is_dir() else None, tiny=options.tiny)
    known = before(runner.page["about"])
    for part in parts:
        asked = (options.only or part.name) in part.name
        if part.name in known and not (options.only and asked):
            runner.keep(known[part.name])
        elif asked:
            runner.run(part)
    return runner


def _train(options: argparse.Namespace, runner: Any) -> None:
    from lidit_jax.benchmarks.part_runner import Part, part_command

    seconds = 60 * options.train_minutes
    runner.extend(seconds)
    command = part_command(
        "train",
        recipe=options.then_train,
        overrides=options.overrides,
        out=str(options.out.absolute()),
        tiny=options.tiny,
    )
    title = f"Training {options.then_train} for {options.train_minutes:g} minutes"
    limit = seconds - _TRAIN_RESERVE
    runner.run(Part("train", title, command, min(30.0, limit / 2), limit))
