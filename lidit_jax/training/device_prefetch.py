"""Transfer of batches to the devices, and online encoding of their captions."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Int64

from lidit_jax.config.schema import Config
from lidit_jax.training.compile_ahead import abstract
from lidit_jax.training.step import Batch, EncodeFunction
from lidit_jax.training.tasks import Task


class DeviceBatch(NamedTuple):
    """Batch on the devices of all processes."""

    bucket: int
    """Number of its image shape."""
    records: Int64[np.ndarray, " b"]
    """Numbers of this process's records."""
    arrays: Batch


class DevicePrefetch:
    """Prefetcher that puts this process's part of a batch on its devices and encodes it."""

    def __init__(self, task: Task, config: Config, frozen: Any, sharding: Sharding):
        """Store the task and its frozen models.

        Args:
          task: has the data, and encodes the batches.
          config: of the run.
          frozen: the task's frozen arrays, already sharded.
          sharding: of arrays whose first axis is the batch.
        """
        self._task, self._config = task, config
        self._frozen, self._sharding = frozen, sharding
        together = functools.partial(_encode_together, task.encode)
        self._encode = jax.jit(together, out_shardings=sharding)

    def put(self, batch: Batch) -> Batch:
        """Return the batch as global arrays, without encoding."""
        place = functools.partial(jax.make_array_from_process_local_data, self._sharding)
        return jax.tree.map(place, batch)

    def training(self, position: int, workdir: Path) -> Generator[DeviceBatch]:
        """Yield training batches forever.

        Captions of `config.data.encode_steps` batches are encoded in one call; with a value of 1
        they are encoded in the step's own program. The groups begin at multiples of that number, so
        that a resumed run is bit-exact. Closing the iterator ends the reader processes.

        Args:
          position: batches already consumed.
          workdir: of the run.
        """
        several = self._config.data.encode_steps
        begin = position - position % several
        with closing(self._task.data.batches(begin, workdir)) as batches:
            while True:
                group = list(itertools.islice(batches, several))
                placed = self._encoded([self.put(batch.arrays) for batch in group])
                pairs = list(zip(group, placed, strict=True))
                for batch, ready in pairs[max(position - begin, 0) :]:
                    yield DeviceBatch(batch.bucket, batch.records, ready)
                begin += several

    def validation(self, batch_size: int) -> Iterator[DeviceBatch]:
        """Yield all held-out records once, without encoding.

        Args:
          batch_size: of all processes together.
        """
        share = jax.process_index(), jax.process_count()
        for batch in self._task.data.validation(batch_size, share):
            yield DeviceBatch(batch.bucket, batch.records, self.put(batch.arrays))

    def training_example(self, bucket: int) -> Batch:
        """Return the shapes, types and shardings of a batch of `training`."""
        batch = self._task.data.example(bucket, self._config.training.batch_size)
        if self._config.data.encode_steps > 1 and "ids" in batch:
            captions = {name: batch.pop(name) for name in ("ids", "masks")}
            batch |= jax.eval_shape(self._encode, self._frozen, [captions])[0]
        return abstract(batch, self._sharding)

    def validation_example(self, bucket: int, batch_size: int) -> Batch:
        """Return the shapes, types and shardings of a batch of `validation`."""
        batch = self._task.data.example(bucket, batch_size)
        valid = jax.ShapeDtypeStruct((batch_size,), bool)
        return abstract(batch | {"valid": valid}, self._sharding)

    def _encoded(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """Return batches with all captions encoded in one call, if there are several."""
        if len(batches) == 1 or "ids" not in batches[0]:
            return batches
        captions = [{name: batch.pop(name) for name in ("ids", "masks")} for batch in batches]
        features = self._encode(self._frozen, captions)
        return [batch | more for batch, more in zip(batches, features, strict=True)]


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
