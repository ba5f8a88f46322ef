"""Profiler traces of some steps, by configuration or on request."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax

from lidit_jax.config.schema import TrainingConfig
from lidit_jax.io.bucket_sync import local_staging
from lidit_jax.parallel.distributed import any_process

REQUEST = "profile-now"
"""File in the workdir that requests a profile, as does SIGUSR1 to any process."""


class Profiler:
    """Profiler of `training.profile_steps` steps on all hosts, written to `workdir/profile`.

    It begins at step `training.profile_from`, or soon after a request: every `log_every` steps the
    processes exchange requests, so that all of them trace the same steps.
    """

    def __init__(self, workdir: Path, training: TrainingConfig, say: Callable[[str], None]):
        """Prepare a profiler without starting a trace.

        Args:
          workdir: of the run.
          training: first step and number of steps.
          say: prints a line.
        """
        self._workdir, self._training, self._say = workdir, training, say
        self._asked = threading.Event()
        self._last = 0
        self._trace = ExitStack()

    def __enter__(self) -> Profiler:
        self._previous = None
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGUSR1, lambda *_: self._asked.set())
        return self

    def __exit__(self, *_: object) -> None:
        self._trace.close()
        if self._previous is not None:
            signal.signal(signal.SIGUSR1, self._previous)

    def step(self, step: int, state: Any) -> None:
        """Start or stop a trace when it is due; call it before each step.

        Args:
          step: number of the next step.
          state: train state after the previous step, to wait for when a trace ends.
        """
        training = self._training
        if self._last and step > self._last:
            jax.block_until_ready(state)
            self._trace.close()
            self._say(f"profiled up to step {self._last}: {self._workdir / 'profile'}")
            self._last = 0
        due = step == training.profile_from
        if step % training.log_every == 1 % training.log_every and self._is_asked():
            due = True
        if due and not self._last:
            self._last = step + training.profile_steps - 1
            self._say(f"profiling steps {step} to {self._last}")
            self._begin()

    def _begin(self) -> None:
        folder = self._trace.enter_context(local_staging(self._workdir / "profile"))
        self._trace.enter_context(jax.profiler.trace(str(folder)))

    def _is_asked(self) -> bool:
        """Return whether any process got a signal or the file exists, and clear the request."""
        request = self._workdir / REQUEST
        if jax.process_index() == 0 and request.exists():
            request.unlink()
            self._asked.set()
        asked = any_process(self._asked.is_set())
        self._asked.clear()
        return asked
