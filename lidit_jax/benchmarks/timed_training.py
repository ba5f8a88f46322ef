"""A recipe trained for as long as there is time: a constant rate, then a decay that ends in time.

How many steps fit is known only once some were done. So the first phase has no end: it is stopped
by SIGTERM, on which it saves itself, and its speed decides the length of the second, which resumes
it with all of its steps under the decay.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lidit_jax.errors import LiditError
from lidit_jax.io.paths import cache_dir
from lidit_jax.training.monitoring.metric_files import RECORDS, read_records

_ENDLESS = 100_000_000
_DECAY_FRACTION = 0.4
"""Of the time for training."""
_LARGEST_FILE = 15 * 2**20
_FILES_BESIDE = 4
"""Files of results beside the weights: the page's three, and the archive of small ones."""
_MOST_FILES = 8
_GRACE = 12.0
"""Seconds that a run has to save itself."""
_SAFETY = 0.95
"""Of the steps that the measured speed promises."""
_TRACED = 0.3
"""Of the time of compiling, what is left of it where the program is in the cache."""
_PROGRAM = "jit_train_step-*"
"""Its files in JAX's cache of compiled programs."""
_TINY = ("model.width=32", "model.depth=2", "model.heads=2", "model.scan_unroll=1")
_TINY += ("data.train_records=64", "data.distinct_captions=16", "data.validation_records=8")
_TINY += ("sampling.steps=2", "training.batch_size=8", "optimizer.warmup_steps=4")
_ARCHIVE = "model.tar"


class TimeBudget(NamedTuple):
    """How the seconds of a training are spent, from its first to its last."""

    stable: float
    """When the constant rate ends."""
    decays: bool
    """Whether there is a decay: it is longer than the restart that it takes."""
    trained: float
    """When training must have ended: the rest is for the export."""


def split_seconds(total: float, started: float, restart: float) -> TimeBudget:
    """The times of a training, once its first steps were seen.

    Args:
      total: seconds from the start to the end of everything.
      started: seconds until the first steps.
      restart: seconds until the second phase takes steps (`restart_seconds`).
    """
    trained = total - export_reserve(total)
    steps = max(trained - started - restart, 0.0)
    if _DECAY_FRACTION * steps < restart:
        return TimeBudget(max(trained, started), False, trained)
    return TimeBudget(started + (1 - _DECAY_FRACTION) * steps, True, trained)


def export_reserve(total: float) -> float:
    """Seconds kept for validation, the last checkpoint, pictures and the export."""
    return min(40.0, 0.3 * total)


def late_reserve(total: float) -> float:
    """Seconds kept where the decay is late: a run that is stopped does nothing but save itself."""
    return min(27.0, 0.2 * total)


def restart_seconds(started: float, compiled: float, *, cached: bool) -> float:
    """Seconds until the second phase takes steps.

    Args:
      started: those of the first phase.
      compiled: its part in which the step was traced, compiled and run for the first time.
      cached: whether the compiled step was kept: then it is traced again, and read.
    """
    return started - (1 - _TRACED) * compiled if cached else started


def timed_training(
    given: Mapping[str, Any],
    note: Callable[[dict[str, Any]], None],
    left: Callable[[], float],
) -> None:
    """Trains and exports into `given["out"]`, whatever goes wrong after the first checkpoint.

    Args:
      given: `recipe`, its `overrides`, `out`, and whether it is `tiny`.
      note: takes what is known so far.
      left: seconds left.

    Raises:
      LiditError: when there is no checkpoint to export.
    """
    begun, total = time.monotonic(), left()

    def clock() -> float:
        return time.monotonic() - begun

    with tempfile.TemporaryDirectory() as folder:
        run = _Run(Path(folder) / "run", given)
        try:
            _both_phases(run, note, clock, total)
        except LiditError as error:  # whatever was saved before is exported
            note({"trouble": str(error)})
        note(run.summary())
        if not run.step:
            raise LiditError("the run left no checkpoint: see its messages above")
        note({"exported_step": run.step})
        note({"files": _export(run.workdir, Path(folder), Path(given["out"]))})
        note({"seconds_at_the_end": round(clock(), 1)})


def _both_phases(
    run: _Run, note: Callable[[dict[str, Any]], None], clock: Callable[[], float], total: float
) -> None:
    endless = [f"training.steps={_ENDLESS}", "optimizer.decay_steps=1", "training.log_every=20"]
    with run.phase([*endless, "training.checkpoint_every=1000"]) as process:
        run.wait(process, lambda: clock() >= total - export_reserve(total) or run.speeds())
        started = clock()
        compiled = max(time.time() - run.prepared, 0.0)
        restart = restart_seconds(started, compiled, cached=_is_cached())
        times = split_seconds(total, started, restart)
        note({"started_after_seconds": round(started, 1), "of_which_compiling": round(compiled, 1)})
        note({"a_restart_takes": round(restart, 1)})
        run.wait(process, lambda: clock() >= times.stable)
        run.stop(process)
    speed, reached = statistics.median(run.speeds()[-50:] or [0.0]), run.step
    if not times.decays:
        note({"steps_at_a_constant_rate": reached, "steps_per_second": speed})
        note({"decay": "left out, as it would be shorter than the restart"})
        return
    remaining = times.trained - clock() - restart
    steps = int(_SAFETY * speed * remaining)
    note({"steps_at_a_constant_rate": reached, "steps_per_second": speed, "decay_steps": steps})
    if steps < 1 or not reached:
        return
    decay = [f"training.steps={reached + steps}", f"optimizer.decay_steps={steps}"]
    often = [f"training.checkpoint_every={max(steps // 6, 1)}", "training.log_every=20"]
    with run.phase([*decay, *often]) as process:
        run.wait(process, lambda: clock() >= total - late_reserve(total))
        if process.poll() is None:
            note({"decay": "was late and stopped before its last step"})
            if run.logged > reached:  # else there is nothing to save
                run.stop(process)


class _Run:
    """One workdir and the processes that train in it."""

    def __init__(self, workdir: Path, given: Mapping[str, Any]):
        self.workdir = workdir
        self._recipe = given["recipe"]
        self._overrides = [*(_TINY if given["tiny"] else ()), *given["overrides"]]

    @property
    def step(self) -> int:
        """Of the newest checkpoint; 0 for none."""
        found = (self.workdir / "checkpoints").glob("[0-9]*")
        return max((int(path.name) for path in found if path.name.isdecimal()), default=0)

    def records(self) -> list[dict[str, Any]]:
        """What the run has logged."""
        with contextlib.suppress(OSError, ValueError):
            return read_records(self.workdir / RECORDS)
        return []

    @property
    def logged(self) -> int:
        """The newest step of the log."""
        return max((row["step"] for row in self.records()), default=0)

    def speeds(self) -> list[float]:
        """Steps a second between entries of the log."""
        return [1 / row["step_seconds"] for row in self.records() if row.get("step_seconds")]

    @property
    def prepared(self) -> float:
        """When the run had its data and began to compile its step; now, before that."""
        with contextlib.suppress(OSError):
            return (self.workdir / "config.json").stat().st_mtime
        return time.time()

    def summary(self) -> dict[str, Any]:
        """Speed, use of the device and loss, from the log."""
        rows = [row for row in self.records() if "loss" in row]
        names = ("images_per_second", "model_flops_utilization", "data_wait_fraction")
        found = {}
        for name in names:
            if values := [row[name] for row in rows if name in row]:
                found[name] = statistics.median(values)
        if rows:
            found["loss"] = {"first": rows[0]["loss"], "last": rows[-1]["loss"]}
            found["device_memory_gib"] = rows[-1].get("device_memory_gib", "not told")
        return found

    @contextlib.contextmanager
    def phase(self, settings: Sequence[str]) -> Any:
        """A process that trains; it has ended afterwards."""
        quiet = [f"training.{name}_every={_ENDLESS}" for name in ("eval", "image")]
        quiet += ["training.keep_checkpoints=2"]
        words = [f"--config.{one}" for one in (*quiet, *self._overrides, *settings)]
        where = [f"--config={self._recipe}", f"--workdir={self.workdir}"]
        command = [sys.executable, "-m", "lidit_jax.cli", "train", *where, *words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def wait(self, process: subprocess.Popen[Any], done: Callable[[], Any]) -> None:
        """Waits for something, or for the end of the process.

        Raises:
          LiditError: when the process has failed.
        """
        while process.poll() is None and not done():
            time.sleep(0.1)
        if process.returncode:
            raise LiditError(f"lidit train ended with status {process.returncode}")

    def stop(self, process: subprocess.Popen[Any]) -> None:
        """Lets a process save itself and end; one that does not is killed."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)


def _is_cached() -> bool:
    """Whether JAX keeps the compiled step, so that a run with another schedule finds it."""
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", cache_dir() / "xla")
    return any(Path(folder).glob(_PROGRAM))


def _export(workdir: Path, folder: Path, out: Path) -> list[str]:
    """Writes the averaged weights, in files that are small enough, and the rest as one archive."""
    model = folder / "model"
    command = [sys.executable, "-m", "lidit_jax.cli", "export", f"--checkpoint={workdir}"]
    for limit in (["--max-file-size=15MiB"], []):
        shutil.rmtree(model, ignore_errors=True)
        done = subprocess.run(
            [*command, f"--out={model}", *limit],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            check=False,
        )
        if done.returncode == 0:
            break
    else:
        raise LiditError("lidit export failed: see its messages above")
    for old in (*out.glob("model*.safetensors*"), out / _ARCHIVE):
        old.unlink(missing_ok=True)
    names = []
    for file in sorted(model.glob("*.safetensors")):
        names += _moved(file, out)
    _archive(model, workdir, out / _ARCHIVE)
    if len(names) > _MOST_FILES - _FILES_BESIDE:
        print(f"warning: {len(names)} files of weights are more than a few", file=sys.stderr)
    return [*names, _ARCHIVE]


def _moved(file: Path, out: Path) -> list[str]:
    """Moves a file; one that could not be divided by tensors is cut: `cat` joins its pieces."""
    if file.stat().st_size <= _LARGEST_FILE:
        shutil.move(file, out / file.name)
        return [file.name]
    names = []
    with file.open("rb") as stream:
        while piece := stream.read(_LARGEST_FILE):
            names.append(f"{file.name}.{len(names):02d}")
            (out / names[-1]).write_bytes(piece)
    return names


def _archive(model: Path, workdir: Path, file: Path) -> None:
    """The model's small files, the log of the run and its last pictures."""
    images = sorted((workdir / "images").glob("*.png"))[-2:]
    logs = [workdir / name for name in (RECORDS, "config.json", "parameters.txt")]
    with tarfile.open(file, "w") as archive:
        for path in sorted(model.rglob("*")):
            if path.is_file() and path.suffix != ".safetensors":
                archive.add(path, path.relative_to(model))
        for path in (*images, *logs):
            if path.is_file():
                archive.add(path, Path("run") / path.name)
