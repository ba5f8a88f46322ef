"""Batches read ahead by threads or by processes of their own, in their order."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import grain.python as grain
import jax
import numpy as np
from absl import flags

from lidit_jax.data.reader_processes import begin_reader
from lidit_jax.errors import LiditError

_AHEAD = 8
"""Batches that threads keep ready."""
_AHEAD_EACH = 4
"""Batches that each process keeps ready."""


def read_ahead(batches: grain.MapDataset, workers: int = 0, threads: int = 2) -> Generator[Any]:
    """The elements of a data set in their order, each read as a whole by one thread or process.

    Nothing begins before the first one is asked for; to close the generator ends what has begun.

    Args:
      batches: random access to trees of arrays; other leaves, such as texts, are left as they are.
      workers: processes that read, in turn; 0 for threads.
      threads: threads that read, without processes.

    Raises:
      LiditError: when a process that reads was ended.
    """
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain asks absl for its own, which have their defaults
            flags.FLAGS.mark_as_parsed()
        # Each reads one batch after the other: threads in them would only wait for each other.
        alone = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=_AHEAD_EACH)
        iterator = iter(batches.to_iter_dataset(alone).mp_prefetch(options, begin_reader))
    else:
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_AHEAD)
        iterator = iter(batches.to_iter_dataset(options))
    try:
        while True:
            batch = next(iterator)
            yield jax.tree.map(_own, batch) if workers else batch
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
    """An array out of the shared memory, which the next batches take."""
    return np.array(leaf) if isinstance(leaf, np.ndarray) else leaf
