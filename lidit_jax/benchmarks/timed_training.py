"""Training for a given wall time: constant learning rate, then a decay that ends in time.

How many steps fit is known only after some have run. The first phase therefore has no fixed end:
SIGTERM makes it save a checkpoint and stop, and its speed determines the number of steps of the
second phase, which resumes it with the decay.
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
"""Fraction of the training time spent in the decay."""
_LARGEST_FILE = 15 * 2**20
_FILES_BESIDE = 4
"""Result files besides the weights: the page's three, and the archive of small files."""
_MOST_FILES = 8
_GRACE = 12.0
"""Seconds that a stopped run has to save its checkpoint."""
_SAFETY = 0.95
"""Fraction of the steps predicted from the measured speed that is scheduled."""
_TRACED = 0.3
"""Fraction of the compile time that remains when the program is in the compilation cache."""
_PROGRAM = "jit_train_step-*"
"""Pattern of the train step's files in JAX's compilation cache."""
_TINY = ("model.width=32", "model.depth=2", "model.heads=2", "model.scan_unroll=1")
_TINY += ("data.train_records=64", "data.distinct_captions=16", "data.validation_records=8")
_TINY += ("sampling.steps=2", "training.batch_size=8", "optimizer.warmup_steps=4")
_ARCHIVE = "model.tar"


class TimeBudget(NamedTuple):
    """Time budget of a training, in seconds from its start."""

    stable: float
    """End of the constant learning rate."""
    decays: bool
    """Whether there is a decay: only if it takes longer than the restart before it."""
    trained: float
    """End of training: the rest is for the export."""


def split_seconds(total: float, started: float, restart: float) -> TimeBudget:
    """Divide the total time, once the first steps have run.

    Args:
      total: seconds from the start to the end of the export.
      started: seconds until the first steps.
      restart: seconds until the first steps of the second phase (`restart_seconds`).
    """
    trained = total - export_reserve(total)
    steps = max(trained - started - restart, 0.0)
    if _DECAY_FRACTION * steps < restart:
        return TimeBudget(max(trained, started), False, trained)
    return TimeBudget(started + (1 - _DECAY_FRACTION) * steps, True, trained)


def export_reserve(total: float) -> float:
    """Return the seconds reserved for validation, the last checkpoint, images and the export."""
    return min(40.0, 0.3 * total)


def late_reserve(total: float) -> float:
    """Return the seconds reserved if the decay is late: a stopped run only saves a checkpoint."""
    return min(27.0, 0.2 * total)


def restart_seconds(started: float, compiled: float, *, cached: bool) -> float:
    """Return the seconds until the first steps of the second phase.

    Args:
      started: seconds until the first steps of the first phase.
      compiled: part of them in which the step was traced, compiled and run for the first time.
      cached: whether the compiled step is cached: then it is only traced again and read.
    """
    return started - (1 - _TRACED) * compiled if cached else started


def timed_training(
    given: Mapping[str, Any],
    note: Callable[[dict[str, Any]], None],
    left: Callable[[], float],
) -> None:
    """Train and export into `given["out"]`, even if something fails after the first checkpoint.

    Args:
      given: `recipe`, its `overrides`, `out`, and whether it is `tiny`.
      note: called with the results so far.
      left: returns the seconds left.

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
        except LiditError as error:  # the last checkpoint is exported anyway
            note({"trouble": str(error)})
        note(run.summary())
        if not run.step:
            raise LiditError("the run wrote no checkpoint: see its messages above")
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
        note({"decay": "skipped: shorter than the restart"})
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
            note({"decay": "stopped before its last step: out of time"})
            if run.logged > reached:  # else there is nothing to save
                run.stop(process)


class _Run:
    """Workdir of a run and the processes that train in it."""

    def __init__(self, workdir: Path, given: Mapping[str, Any]):
        self.workdir = workdir
        self._recipe = given["recipe"]
        self._overrides = [*(_TINY if given["tiny"] else ()), *given["overrides"]]

    @property
    def step(self) -> int:
        """Step of the newest checkpoint; 0 for none."""
        found = (self.workdir / "checkpoints").glob("[0-9]*")
        return max((int(path.name) for path in found if path.name.isdecimal()), default=0)

    def records(self) -> list[dict[str, Any]]:
        """Return the records of the run's log."""
        with contextlib.suppress(OSError, ValueError):
            return read_records(self.workdir / RECORDS)
        return []

    @property
    def logged(self) -> int:
        """Newest step in the log."""
        return max((row["step"] for row in self.records()), default=0)

    def speeds(self) -> list[float]:
        """Return the steps per second between log entries."""
        return [1 / row["step_seconds"] for row in self.records() if row.get("step_seconds")]

    @property
    def prepared(self) -> float:
        """Time at which data was ready and compilation began; now, if that is still to come."""
        with contextlib.suppress(OSError):
            return (self.workdir / "config.json").stat().st_mtime
        return time.time()

    def summary(self) -> dict[str, Any]:
        """Return speed, MFU and loss, from the log."""
        rows = [row for row in self.records() if "loss" in row]
        names = ("images_per_second", "model_flops_utilization", "data_wait_fraction")
        found = {}
        for name in names:
            if values := [row[name] for row in rows if name in row]:
                found[name] = statistics.median(values)
        if rows:
            found["loss"] = {"first": rows[0]["loss"], "last": rows[-1]["loss"]}
            found["device_memory_gib"] = rows[-1].get("device_memory_gib", "unknown")
        return found

    @contextlib.contextmanager
    def phase(self, settings: Sequence[str]) -> Any:
        """Run a training process within a context, and make sure that it ends with it."""
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
        """Wait until `done` is true or the process ends.

        Raises:
          LiditError: when the process has failed.
        """
        while process.poll() is None and not done():
            time.sleep(0.1)
        if process.returncode:
            raise LiditError(f"lidit train ended with status {process.returncode}")

    def stop(self, process: subprocess.Popen[Any]) -> None:
        """Let a process save a checkpoint and end; kill it if it does not."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)


def _is_cached() -> bool:
    """Return whether JAX caches the compiled step, so that another schedule's run reuses it."""
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", cache_dir() / "xla")
    return any(Path(folder).glob(_PROGRAM))


def _export(workdir: Path, folder: Path, out: Path) -> list[str]:
    """Export the EMA weights, split into files of limited size, and the rest as one archive."""
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
        print(f"warning: {len(names)} weight files are many", file=sys.stderr)
    return [*names, _ARCHIVE]


def _moved(file: Path, out: Path) -> list[str]:
    """Move a file; cut it if it is still too large, so that `cat` joins the pieces."""
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
    """Write the model's small files, the run's log and its last images into an archive."""
    images = sorted((workdir / "images").glob("*.png"))[-2:]
    logs = [workdir / name for name in (RECORDS, "config.json", "parameters.txt")]
    with tarfile.open(file, "w") as archive:
        for path in sorted(model.rglob("*")):
            if path.is_file() and path.suffix != ".safetensors":
                archive.add(path, path.relative_to(model))
        for path in (*images, *logs):
            if path.is_file():
                archive.add(path, Path("run") / path.name)
