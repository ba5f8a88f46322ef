"""What one sees of a run: progress, `metrics.jsonl`, TensorBoard, a loss curve, image grids."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from clu.metrics import Average
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lidit_jax.evaluation.images import captioned_grid
from lidit_jax.output import atomic_file
from lidit_jax.parallel.devices import peak_flops
from lidit_jax.training.report import write_report


class RunLog:
    """Writes on process 0 only; the other processes call the same methods to no effect.

    Metrics arrive as device arrays and are averaged there, so that only `flush` waits for the step
    that is running.
    """

    def __init__(
        self,
        workdir: Path,
        total_steps: int,
        batch_size: int,
        first_step: int,
        sample_flops: float | None = None,
    ):
        """Opens the log of a run.

        Args:
          workdir: of the run.
          total_steps: at which it will end.
          batch_size: images a step, of all processes together.
          first_step: steps done before.
          sample_flops: operations of training on one image; without it no use of the devices.
        """
        self._active = jax.process_index() == 0
        self._workdir, self._total, self._batch_size = workdir, total_steps, batch_size
        self._mark, self._waited = (time.perf_counter(), first_step), 0.0
        self._sample_flops, self._peak = sample_flops, peak_flops(jax.devices()[0])
        self._averages: dict[str, Average] = {}
        if not self._active:
            return
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(workdir / "tensorboard"))
        records = workdir / "metrics.jsonl"
        _drop_torn_line(records)
        self._records = records.open("a", encoding="utf-8")
        self.console = Console()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._bar = self._progress.add_task("training", total=total_steps, completed=first_step)
        self._progress.start()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def accumulate(self, averages: dict[str, Average]) -> None:
        """Adds one step's metrics to the running averages, on the device."""
        self._averages = _merge(self._averages, averages) if self._averages else averages

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Counts the time until the next batch is there."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    def flush(self, step: int) -> dict[str, float]:
        """Writes and returns the averages since the last flush, with speed and time left."""
        averages = jax.device_get(self._averages)
        values = {name: float(a.total / a.count) for name, a in averages.items() if a.count}
        self._averages = {}
        now, (then, first) = time.perf_counter(), self._mark
        self._mark = (now, step)
        values["step_seconds"] = (now - then) / max(step - first, 1)
        values["images_per_second"] = self._batch_size / values["step_seconds"]
        values["data_wait_share"] = self._waited / max(now - then, 1e-9)
        self._waited = 0.0
        if self._sample_flops:
            device_flops = values["images_per_second"] * self._sample_flops / jax.device_count()
            values["tflops_per_second_per_device"] = device_flops / 1e12
            if self._peak:
                values["model_flops_utilisation"] = device_flops / self._peak
        self.scalars(step, values)
        if self._active:
            left = (self._total - step) * values["step_seconds"]
            loss = f"loss {values.get('loss', math.nan):.4f}"
            line = f"step {step}/{self._total}  {loss}  "
            line += f"{values['images_per_second']:.0f} images/s  {_duration(left)} left"
            self._progress.update(self._bar, completed=step, description=loss)
            if not self.console.is_terminal:
                print(line, flush=True)
        return values

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes numbers to `metrics.jsonl` and TensorBoard."""
        if not self._active:
            return
        self._records.write(json.dumps({"step": step} | values) + "\n")
        self._records.flush()
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def images(
        self, step: int, images: UInt8[np.ndarray, "B H W 3"], captions: Sequence[str]
    ) -> None:
        """Writes `images/step_NNNNNN.png` and the same to TensorBoard."""
        if not self._active:
            return
        folder = self._workdir / "images"
        folder.mkdir(exist_ok=True)
        grid = captioned_grid(images, captions, columns=min(len(images), 8))
        with atomic_file(folder / f"step_{step:06d}.png") as file:
            grid.save(file, format="PNG")
        self._writer.add_image("samples", np.asarray(grid), step, dataformats="HWC")

    def say(self, text: str) -> None:
        """Prints a line above the progress bar."""
        if self._active:
            self.console.print(text, highlight=False)

    def close(self) -> None:
        """Draws the loss curve, writes the report and closes the files."""
        if not self._active:
            return
        self._progress.stop()
        self._records.close()
        self._writer.close()
        write_report(self._workdir)


@jax.jit
def _merge(total: dict[str, Average], step: dict[str, Average]) -> dict[str, Average]:
    return jax.tree.map(jnp.add, total, step)


def _drop_torn_line(records: Path) -> None:
    """Takes away what a full disk or a power cut has left of a last line."""
    if records.is_file():
        content = records.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(records, whole)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
