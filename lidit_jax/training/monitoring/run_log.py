"""Log of a run: progress bar, metrics in files and trackers, report, image grids."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from clu.metrics import Average
from jaxtyping import UInt8

from lidit_jax.config.schema import Config
from lidit_jax.evaluation.images import captioned_grid
from lidit_jax.hardware.devices import peak_flops
from lidit_jax.hardware.topologies import GIB
from lidit_jax.io.console import NoWrapConsole
from lidit_jax.io.output import atomic_file
from lidit_jax.io.progress import bar_on
from lidit_jax.training.monitoring.goodput import Goodput
from lidit_jax.training.monitoring.metric_files import MetricFiles
from lidit_jax.training.monitoring.report import write_report
from lidit_jax.training.monitoring.tracker import Tracker, check_installed


class RunLog:
    """Log of a run, written by process 0; on other processes the methods do nothing.

    Metrics arrive as device arrays and are averaged there, so that only `flush` waits for the
    current step.
    """

    def __init__(
        self,
        workdir: Path,
        total_steps: int,
        batch_size: int,
        first_step: int,
        sample_flops: float | None = None,
        begun: float | None = None,
        config: Config | None = None,
    ):
        """Open the log of a run.

        Args:
          workdir: of the run; a folder, or in a bucket.
          total_steps: steps at the end of the run.
          batch_size: images per step, of all processes together.
          first_step: steps done before.
          sample_flops: operations of training on one image; without it no MFU is logged.
          begun: time of this start, in seconds since 1970; None for now.
          config: the run's configuration, with the name of the tracker.

        Raises:
          LiditError: when that tracker is not installed.
        """
        self._active = jax.process_index() == 0
        self._workdir, self._total, self._batch_size = workdir, total_steps, batch_size
        self._mark, self._waited, self._aside = (time.perf_counter(), first_step), 0.0, 0.0
        self._sample_flops, self._peak = sample_flops, peak_flops(jax.devices()[0])
        self._averages: dict[str, Average] = {}
        tracker = config.training.tracker if config else "none"
        check_installed(tracker)
        if not self._active:
            return
        self._files = MetricFiles(workdir)
        begun = time.time() if begun is None else begun
        self._goodput = Goodput(self._files.earlier, first_step, begun)
        self._files.note(first_step, {"started": begun})
        self._tracker = None
        if config and tracker != "none":
            self._tracker = Tracker(tracker, workdir, config)
        self.console = NoWrapConsole()
        self._progress = bar_on(self.console)
        self._bar = self._progress.add_task("training", total=total_steps, completed=first_step)
        self._progress.start()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_clock(self, step: int, averages: dict[str, Average]) -> None:
        """Wait for the first step, which includes compiling, and start measuring speed after it."""
        jax.block_until_ready(averages)
        self._mark, self._waited, self._aside = (time.perf_counter(), step), 0.0, 0.0

    def accumulate(self, averages: dict[str, Average]) -> None:
        """Add one step's metrics to the running averages, on the device."""
        self._averages = _merge(self._averages, averages) if self._averages else averages

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Measure the time spent waiting for the next batch."""
        begin = time.perf_counter()
        with self.off_step_time():
            yield
        self._waited += time.perf_counter() - begin

    @contextmanager
    def off_step_time(self) -> Iterator[None]:
        """Measure time that is not spent on steps: validation, images, checkpoints."""
        begin = time.perf_counter()
        yield
        self._aside += time.perf_counter() - begin

    def flush(self, step: int) -> dict[str, float]:
        """Write and return the averages since the last flush, with speed and time left.

        Without a step since the clock was started there is no speed.
        """
        values = self._values(step)
        self._averages, self._mark = {}, (time.perf_counter(), step)
        self._waited = self._aside = 0.0
        values |= _device_memory()
        if self._active:
            self._goodput.add(values.get("productive_seconds", 0.0))
            values["goodput"] = self._goodput.fraction(time.time())
        self.scalars(step, values)
        self._print(step, values)
        return values

    def show(self, step: int) -> None:
        """Print the line of `flush` without resetting the averages or writing files."""
        self._print(step, self._values(step))

    def _values(self, step: int) -> dict[str, float]:
        """Return the averages and the speed since the last flush."""
        averages = jax.device_get(self._averages)
        values = {name: float(a.total / a.count) for name, a in averages.items() if a.count}
        then, first = self._mark
        if step > first:
            values |= self._speed(time.perf_counter() - then, step - first)
        return values

    def _print(self, step: int, values: dict[str, float]) -> None:
        if not self._active:
            return
        loss = f"loss {values.get('loss', math.nan):.4f}"
        line = f"step {step}/{self._total}  {loss}"
        if "step_seconds" in values:
            left = (self._total - step) * values["step_seconds"]
            line += f"  {values['images_per_second']:.0f} images/s  {_duration(left)} left"
        self._progress.update(self._bar, completed=step, description=loss)
        if not self.console.is_terminal:
            print(line, flush=True)

    def _speed(self, seconds: float, steps: int) -> dict[str, float]:
        """Return speed metrics of a number of steps in a number of seconds."""
        values = {
            "step_seconds": seconds / steps,
            "images_per_second": self._batch_size * steps / seconds,
            "data_wait_fraction": self._waited / seconds,
            "productive_seconds": max(seconds - self._aside, 0.0),
            "steps": steps,
        }
        if self._sample_flops:
            device_flops = values["images_per_second"] * self._sample_flops / jax.device_count()
            values["tflops_per_second_per_device"] = device_flops / 1e12
            if self._peak:
                values["model_flops_utilization"] = device_flops / self._peak
        return values

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write numbers, if there are any, to `metrics.jsonl`, TensorBoard and the tracker."""
        if not self._active or not values:
            return
        self._files.write(step, values)
        self._files.flush()
        if self._tracker:
            self._tracker.write(step, values)

    def images(
        self, step: int, images: UInt8[np.ndarray, "B H W 3"], captions: Sequence[str]
    ) -> None:
        """Write an image grid to `images/step_NNNNNN.png` and TensorBoard."""
        if not self._active:
            return
        grid = captioned_grid(images, captions, columns=min(len(images), 8))
        self._files.image(step, np.asarray(grid))
        file = self._workdir / "images" / f"step_{step:06d}.png"
        file.parent.mkdir(exist_ok=True)
        with self._files.tolerate_errors(), atomic_file(file) as stream:
            grid.save(stream, format="PNG")

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        if self._active:
            self.console.say(text)

    def close(self) -> None:
        """Plot the loss curve, write the report and close the files."""
        if not self._active:
            return
        self._progress.stop()
        self._files.close()
        if self._tracker:
            self._tracker.close()
        with self._files.tolerate_errors():
            write_report(self._workdir)


@jax.jit
def _merge(total: dict[str, Average], step: dict[str, Average]) -> dict[str, Average]:
    return jax.tree.map(jnp.add, total, step)


def _device_memory() -> dict[str, float]:
    """Return the peak memory of this process's devices, if they report it."""
    used = [(device.memory_stats() or {}) for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in used if "peak_bytes_in_use" in stats]
    return {"device_memory_gib": max(peaks) / GIB} if peaks else {}


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
