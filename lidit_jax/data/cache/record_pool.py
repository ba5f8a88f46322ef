"""Threads or processes that read records for encoding, ahead and in order."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from lidit_jax.data.reader_processes import begin_reader
from lidit_jax.data.streamed_source import StreamedSource
from lidit_jax.errors import LiditError

Job = TypeVar("Job")
Result = TypeVar("Result")

_THREADS = 8
_AHEAD = 4
"""Jobs per thread or process that are read or wait to be used."""

_sources: Sequence[StreamedSource]


class RecordPool:
    """Pool of readers of the same sources; it starts with the first job."""

    def __init__(self, sources: Sequence[StreamedSource], workers: int):
        """Set the sources.

        Args:
          sources: all sources of the run.
          workers: number of processes; 0 for threads.
        """
        self._sources, self._workers = sources, workers
        self._executor: Executor | None = None

    def __enter__(self) -> RecordPool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def map(
        self, read: Callable[[Sequence[StreamedSource], Job], Result], jobs: Iterable[Job]
    ) -> Generator[Result]:
        """Yield the results of jobs in order.

        Args:
          read: function of a module that does a job; receives the sources and the job.
          jobs: arguments, which can be pickled.

        Raises:
          LiditError: when a process was ended.
        """
        if self._executor is None:
            self._executor = self._start()
        running: deque[Future[Result]] = deque()
        try:
            for job in jobs:
                running.append(self._submit(read, job))
                if len(running) > _AHEAD * (self._workers or _THREADS):
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BrokenProcessPool as error:
            raise LiditError(
                "a process that reads records was ended, perhaps for want of memory: lower "
                f"config.data.workers={self._workers}; what is cached stays cached"
            ) from error
        finally:
            for future in running:
                future.cancel()

    def _start(self) -> Executor:
        if not self._workers:
            return ThreadPoolExecutor(_THREADS, "read")
        # Processes that are forked from a program with threads may hang.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._workers, context, _begin, (self._sources,))

    def _submit(
        self, read: Callable[[Sequence[StreamedSource], Job], Result], job: Job
    ) -> Future[Result]:
        assert self._executor is not None
        if self._workers:
            return self._executor.submit(_work, read, job)
        return self._executor.submit(read, self._sources, job)


def _begin(sources: Sequence[StreamedSource]) -> None:
    global _sources
    begin_reader(0, 0)
    _sources = sources


def _work(read: Callable[..., Any], job: Any) -> Any:
    return read(_sources, job)
