"""Prefetch of batches by threads or processes, delivered in order."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import nullcontext
from typing import Any

import grain.python as grain
import jax
import numpy as np
from absl import flags

from lidit_jax.data.reader_processes import begin_reader, signals_held
from lidit_jax.errors import LiditError

_AHEAD = 8
"""Batches prefetched by threads."""
_AHEAD_EACH = 4
"""Batches prefetched per process."""


def read_ahead(batches: grain.MapDataset, workers: int = 0, threads: int = 2) -> Generator[Any]:
    """Yield the elements of a data set in order, each read by one thread or process.

    Reading starts with the first request, and stops when the generator is closed.

    Args:
      batches: random access to trees of arrays; other leaves, such as texts, are unchanged.
      workers: number of processes that read in turn; 0 for threads.
      threads: number of threads that read, without processes.

    Raises:
      LiditError: when a process that reads was ended.
    """
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain reads its flags from absl; they have defaults
            flags.FLAGS.mark_as_parsed()
        # Each process reads batches in sequence: more threads would only wait for each other.
        alone = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=_AHEAD_EACH)
        iterator = iter(batches.to_iter_dataset(alone).mp_prefetch(options, begin_reader))
    else:
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_AHEAD)
        iterator = iter(batches.to_iter_dataset(options))
    try:
        with signals_held() if workers else nullcontext():
            batch = next(iterator)
        while True:
            yield jax.tree.map(_own, batch) if workers else batch
            batch = next(iterator)
    except RuntimeError as error:
        if not workers:
            raise
        raise LiditError(
            f"a process that reads the training data was ended ({error}): where memory is short, "
            f"lower config.data.workers={workers}; the run goes on from its last checkpoint"
        ) from error
    finally:
        iterator.close()


def _own(leaf: Any) -> Any:
    """Copy an array from the shared memory, which later batches reuse."""
    return np.array(leaf) if isinstance(leaf, np.ndarray) else leaf
