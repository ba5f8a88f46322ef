"""What checkpoints, logs and guards cost beside the bare step, and how long a run takes to start.

    python -m tests.benchmarks.overhead [--config configs/demo.py] [--rounds 8] [--steps 8]

The loop of `lidit train` runs on made-up data of the recipe's shapes. A few steps at a time it
takes turns between three ways: *bare* (log, guards, profiler and saves do nothing), *watched*
(everything but saves), and *saving* (a save begins after the first step; the turn ends when it is
on disk).
Ratios are taken within a round, so that a machine that changes its speed changes it for all three;
the table has their medians. A watched turn writes its metrics once, which recipes do less often.

A start is timed from the process's to the end of the first step, without encoders and data: first
with an empty compilation cache, then with the one that this has filled.
"""

import argparse
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lidit_jax.benchmarks.step import text_streams
from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import Config
from lidit_jax.models.flops import TextStream

WAYS = ("bare", "watched", "saving")
_RECORDS = 256


class Finished(Exception):  # noqa: N818 (it is no mistake)
    """Leaves the loop."""


class Turns:
    """Whose turn it is, and how long each turn took."""

    def __init__(self, steps: int, rounds: int):
        self.seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        self.first_step = 0.0
        self.newest: Any = None
        """What the last step returned."""
        self.finish_save: Callable[[], None] = lambda: None
        self._steps, self._rounds, self._done = steps, rounds, 0
        self._way, self._begin, self._warm = "saving", 0.0, 0

    def begin_step(self) -> None:
        """Called before every step; ends a turn when its steps are over."""
        if self._done == self._steps or self._begin == 0.0:
            self._change()
        self._done += 1

    def _change(self) -> None:
        import jax

        if self.newest is not None:
            jax.block_until_ready(self.newest)
            self.finish_save()
            # The first turn of each way compiles and creates folders.
            if self._warm >= len(WAYS):
                self.seconds[self._way].append(time.perf_counter() - self._begin)
            self._warm += 1
        if len(self.seconds["saving"]) == self._rounds:
            raise Finished
        self._way = WAYS[(WAYS.index(self._way) + 1) % len(WAYS)]
        self._done, self._begin = 0, time.perf_counter()

    @property
    def watched(self) -> bool:
        """Whether log and guards work in this turn."""
        return self._way != "bare"

    @property
    def saves_now(self) -> bool:
        """Whether this is the step whose state is saved."""
        return self._way == "saving" and self._done == 1


def overhead(config: Config, streams: Sequence[TextStream], turns: Turns) -> None:
    """Runs the loop of `lidit train` until all turns are over."""
    from lidit_jax.benchmarks.synthetic_data import synthetic_data
    from lidit_jax.training import loop
    from lidit_jax.training.lidit_task import LIDiTTask

    def only_watched(cls: type, *names: str) -> type:
        """A class whose methods of these names do nothing in bare turns."""

        def switched(method: Callable) -> Callable:
            return lambda *args, **options: method(*args, **options) if turns.watched else None

        return type(cls.__name__, (cls,), {name: switched(getattr(cls, name)) for name in names})

    class Log(only_watched(loop.RunLog, "flush")):
        def accumulate(self, averages: Any) -> None:
            turns.newest = averages
            if turns.watched:
                super().accumulate(averages)

    class Watchdog(loop.Watchdog):
        def step(self) -> None:
            turns.begin_step()
            if turns.watched:
                super().step()

    class Checkpoints(only_watched(loop.Checkpoints, "check")):
        def save(self, *arguments: Any) -> None:
            turns.finish_save = functools.partial(self.check, wait=True)
            if turns.saves_now:
                super().save(*arguments)

    @contextlib.contextmanager
    def watch_preemption() -> Iterator[Callable[[int], bool]]:
        with original_watch() as stop:
            yield lambda step: turns.watched and stop(step)

    original_watch = loop.watch_preemption
    data = synthetic_data(config, streams, _RECORDS)
    loop.make_task = lambda config, saved: LIDiTTask(config, data)
    loop.RunLog, loop.Watchdog, loop.Checkpoints = Log, Watchdog, Checkpoints
    loop.SkippedUpdates = only_watched(loop.SkippedUpdates, "watch", "drain")
    loop.Profiler = only_watched(loop.Profiler, "step")
    loop.watch_preemption = watch_preemption
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Finished):
        loop.train(config, Path(folder) / "run")


def first_step(config: Config, streams: Sequence[TextStream], begun: float) -> None:
    """Prints the seconds from `begun` to the end of the first step, and ends the process."""
    from lidit_jax.benchmarks.synthetic_data import synthetic_data
    from lidit_jax.training import loop
    from lidit_jax.training.lidit_task import LIDiTTask

    class Log(loop.RunLog):
        def accumulate(self, averages: Any) -> None:
            import jax

            jax.block_until_ready(averages)
            print(f"first step after {time.time() - begun}", flush=True)
            raise Finished

    data = synthetic_data(config, streams, _RECORDS)
    loop.make_task = lambda config, saved: LIDiTTask(config, data)
    loop.RunLog = Log
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Finished):
        loop.train(config, Path(folder) / "run")


def start_seconds(arguments: argparse.Namespace) -> list[float]:
    """Seconds to the first step: with an empty compilation cache, and twice with a full one."""
    seconds = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(3):
            command = [sys.executable, "-m", "tests.benchmarks.overhead", "--begun"]
            command += [str(time.time()), "--config", arguments.config]
            command += ["--tokens", str(arguments.tokens)]
            environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
            result = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            if result.returncode:
                sys.exit(result.stderr)
            seconds.append(float(result.stdout.rpartition(" ")[2]))
    return seconds


def print_table(config: Config, turns: Turns, steps: int) -> None:
    """Markdown."""
    bare, watched, saving = (turns.seconds[way] for way in WAYS)
    step = statistics.median(bare) / steps
    per_step = statistics.median(w / b - 1 for w, b in zip(watched, bare, strict=True))
    save = statistics.median(s - w for s, w in zip(saving, watched, strict=True))
    every = config.training.checkpoint_every
    per_save = save / (every * step)
    print("| what | seconds | of the bare step |")
    print("|---|---|---|")
    print(f"| bare step | {step:.4f} | |")
    print(f"| log, guards and profiler, a step | {per_step * step:.5f} | {per_step:.2%} |")
    print(f"| one save, until it is on disk | {save:.2f} | |")
    print(f"| saves, one every {every} steps | {save / every:.5f} | {per_save:.2%} |")
    print(f"| all | | {per_step + per_save:.2%} |")
    for way in WAYS:
        low, high = (edge(turns.seconds[way]) / steps for edge in (min, max))
        print(f"{way}: {low:.4f} to {high:.4f} s a step over {len(bare)} turns")


def main() -> None:
    """Measures both, and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/demo.py")
    parser.add_argument("--tokens", type=int, default=30, help="of a prompt, with its padding")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="steps of a turn")
    parser.add_argument("--begun", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    never = 1_000_000_000
    settings = [f"training.{name}={never}" for name in ("steps", "eval_every", "image_every")]
    settings += ["training.keep_checkpoints=1", "training.watchdog_minutes=30"]
    settings += ["training.checkpoint_every=1", f"training.log_every={arguments.steps}"]
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

    from absl import flags

    flags.FLAGS.mark_as_parsed()  # Grain reads them, and nobody else has parsed them
    config = load_recipe(arguments.config, settings)
    streams = text_streams(config, arguments.tokens)
    if arguments.begun:
        first_step(config, streams, arguments.begun)
        return
    cold, *warm = start_seconds(arguments)
    turns = Turns(arguments.steps, arguments.rounds)
    overhead(config, streams, turns)
    print_table(load_recipe(arguments.config), turns, arguments.steps)
    print(
        f"from process start to first step: {cold:.1f} s, {min(warm):.1f} s with compiled programs"
    )


if __name__ == "__main__":
    main()
