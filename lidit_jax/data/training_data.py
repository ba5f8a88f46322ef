"""Interface of training data: batches of one image shape each, as a function of their number."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from lidit_jax.data.contents import Contents
from lidit_jax.data.order import Order


class HostBatch(NamedTuple):
    """Part of a batch that one process reads."""

    bucket: int
    """Number of its image shape."""
    records: Int64[np.ndarray, " b"]
    """Record numbers, across all sources."""
    arrays: dict[str, Any]
    """Arrays [b, …]: "latent", normalized float32, or "image" uint8; for captions "masks", with
    "features" or "ids" of each stream; "index" int32; in validation "valid", False for padding."""


@runtime_checkable
class TrainingData(Protocol):
    """Batches for training and validation."""

    shapes: tuple[tuple[int, int], ...]
    """Height and width in pixels of the images of each bucket."""
    order: Order
    """Records of each training batch."""

    def __len__(self) -> int:
        """Return the number of training records."""
        ...

    @property
    def contents(self) -> Contents | None:
        """Contents of the training records, to report changes on resuming; None for synthetic
        data."""
        ...

    @property
    def counts(self) -> dict[str, float]:
        """Numbers of records that this process has replaced so far, as they could not be read
        ("skipped_records"), of images that it has repaired ("repaired_records"), and of captions
        that it has cut ("cut_captions"); without zeros."""
        ...

    @property
    def validation_rows(self) -> int:
        """Rows of a validation, without padding; a record may have several."""
        ...

    @property
    def validation_buckets(self) -> tuple[int, ...]:
        """Buckets of the held-out records."""
        ...

    def batches(self, position: int, workdir: Path) -> Generator[HostBatch]:
        """Yield this process's part of endless training batches, prefetched.

        Args:
          position: number of the first batch, which is the complete state of the data.
          workdir: of the run; lists there the records that could not be read.

        Raises:
          LiditError: when a record cannot be read and may not be skipped.
        """
        ...

    def validation(self, batch_size: int, share: tuple[int, int]) -> Iterator[HostBatch]:
        """Yield all held-out records once, in full batches of one shape each.

        Args:
          batch_size: of all processes together.
          share: index of the process, and number of processes.
        """
        ...

    def example(self, bucket: int, rows: int) -> dict[str, Any]:
        """Return the `jax.ShapeDtypeStruct`s of a training batch.

        Args:
          bucket: of the batch.
          rows: its size.
        """
        ...
