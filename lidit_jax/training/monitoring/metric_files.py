"""Writer of `metrics.jsonl` and TensorBoard files that tolerates a full disk.

TensorBoard's format is written here event by event, because tensorboardX's `SummaryWriter` uses a
thread, which ends on a full disk, after which the run would wait for it forever.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter

# protobuf makes the names of this module when it is imported.
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from lidit_jax.io.bucket_sync import Staging
from lidit_jax.io.paths import in_bucket

RECORDS = "metrics.jsonl"
_RENAMED = {
    "data_wait_share": "data_wait_fraction",
    "model_flops_utilisation": "model_flops_utilization",
}
"""Current names of metrics by the names in earlier versions."""
_FLUSH_SECONDS = 20
"""Seconds between flushes of TensorBoard's files, which wait for the disk."""


class MetricFiles:
    """Metric files of one run; several starts append to the same ones."""

    def __init__(self, workdir: Path):
        """Open the files, after downloading earlier ones if the workdir is in a bucket."""
        self._staging = Staging(workdir)
        self._staging.fetch(RECORDS)
        records = self._staging.folder / RECORDS
        _drop_torn_line(records)
        self.earlier: list[dict[str, Any]] = read_records(records) if records.is_file() else []
        """Records of earlier starts."""
        self._records = records.open("a", encoding="utf-8")
        folder = self._staging.folder / "tensorboard"
        folder.mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / "events"))
        self._flushed = 0.0
        # Bucket clients have error types of their own.
        self._errors = Exception if in_bucket(workdir) else OSError
        self._complained = False

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Write a line of `metrics.jsonl`, and its numbers to TensorBoard."""

        self.note(step, values)
        with self.tolerate_errors():
            for name, value in values.items():
                self._add(summary.scalar(name, value), step)

    def note(self, step: int, values: dict[str, Any]) -> None:
        """Write a line of `metrics.jsonl` that is not for plots."""
        with self.tolerate_errors():
            self._records.write(json.dumps({"step": step} | values) + "\n")
            self._records.flush()

    def image(self, step: int, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Write an image to TensorBoard."""
        with self.tolerate_errors():
            self._add(summary.image("samples", image, dataformats="HWC"), step)

    def flush(self) -> None:
        """Flush `metrics.jsonl`, and TensorBoard's files once in a while."""
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flushed = time.monotonic()
            with self.tolerate_errors():
                self._events.flush()
        self._staging.upload()

    def close(self) -> None:
        """Write what is buffered and close the files."""
        for file in (self._events, self._records):
            with self.tolerate_errors():
                file.close()
        self._staging.close()

    @contextmanager
    def tolerate_errors(self) -> Iterator[None]:
        """Warn once about write errors; buffered data is written when it is possible again."""
        try:
            yield
        except self._errors as error:
            if not self._complained:
                reason = getattr(error, "strerror", None) or error
                print(f"the log cannot be written ({reason}); the run goes on", flush=True)
            self._complained = True

    def _add(self, content: Any, step: int) -> None:
        self._events.write_event(Event(summary=content, step=step, wall_time=time.time()))


def read_records(file: Path) -> list[dict[str, Any]]:
    """Read the records of a `metrics.jsonl`, with the metrics under their current names."""
    lines = file.read_bytes().decode().splitlines()
    return [
        {_RENAMED.get(name) or name: value for name, value in json.loads(line).items()}
        for line in lines
    ]


def _drop_torn_line(records: Path) -> None:
    """Remove an incomplete last line, left by a full disk or a power cut."""
    if records.is_file():
        content = records.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(records, whole)
