"""Transfer of batches to the devices, and online encoding of their captions."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from lidit_jax.config.schema import Config
from lidit_jax.data.pipeline import training_batches
from lidit_jax.training.step import Batch, EncodeFunction
from lidit_jax.training.tasks import Task


class DevicePrefetch:
    """Prefetcher that puts this process's part of a batch on its devices and encodes it."""

    def __init__(self, task: Task, frozen: Any, sharding: Sharding):
        """Store the task and its frozen models.

        Args:
          task: encodes the batches.
          frozen: its frozen arrays, already sharded.
          sharding: of arrays whose first axis is the batch.
        """
        self._frozen, self._sharding = frozen, sharding
        together = functools.partial(_encode_together, task.encode)
        self._encode = jax.jit(together, out_shardings=sharding)

    def put(self, batch: Batch) -> Batch:
        """Return the batch as global arrays, without encoding."""
        place = functools.partial(jax.make_array_from_process_local_data, self._sharding)
        return jax.tree.map(place, batch)

    def encoded(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return batches as global arrays, with all captions encoded in one call."""
        placed = [self.put(batch) for batch in batches]
        if "ids" not in placed[0]:
            return placed
        captions = [{name: batch.pop(name) for name in ("ids", "masks")} for batch in placed]
        features = self._encode(self._frozen, captions)
        return [batch | more for batch, more in zip(placed, features, strict=True)]

    def training(
        self, records: Any, config: Config, position: int
    ) -> Generator[tuple[np.ndarray, Batch]]:
        """Yield batches forever, each with the indices of this process's records in it.

        Captions of `config.data.encode_steps` batches are encoded in one call; with a value of 1
        they are encoded in the step's own program. The groups begin at multiples of that number, so
        that a resumed run is bit-exact. Closing the iterator ends the reader processes.

        Args:
          records: random access to training samples.
          config: the run's configuration.
          position: batches already consumed.
        """
        several = config.data.encode_steps
        begin = position - position % several
        size, workers = config.training.batch_size, config.data.workers
        with closing(training_batches(records, size, config.seed, begin, workers)) as batches:
            while True:
                group = list(itertools.islice(batches, several))
                placed = self.encoded(group) if several > 1 else [self.put(group[0])]
                pairs = list(zip(group, placed, strict=True))
                for batch, ready in pairs[max(position - begin, 0) :]:
                    yield batch["index"], ready
                begin += several


def _encode_together(
    encode: EncodeFunction, frozen: Any, parts: Sequence[Batch]
) -> list[dict[str, Any]]:
    """Encode n batches in one call, which reads the weights once for all of them."""
    n = len(parts)

    def join(*leaves: jax.Array) -> jax.Array:
        # Rows of the same position in all batches are adjacent, so that they stay on their device.
        return jnp.stack(leaves, axis=1).reshape(-1, *leaves[0].shape[1:])

    def part(leaf: jax.Array, i: int) -> jax.Array:
        return leaf.reshape(-1, n, *leaf.shape[1:])[:, i]

    whole = encode(frozen, jax.tree.map(join, *parts))
    return [jax.tree.map(functools.partial(part, i=i), whole) for i in range(n)]
