"""Early stop of a run on SIGTERM or Ctrl-C, at a step on which all processes agree."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import multihost_utils


class Terminated(BaseException):
    """Exit on SIGTERM before there is anything to save; like KeyboardInterrupt, not an error."""


@contextmanager
def raise_on_sigterm(*, independent: bool = False) -> Iterator[None]:
    """Raise `Terminated` on SIGTERM, until `watch_preemption` takes over.

    libtpu, which JAX loads when it initializes devices, installs a handler that prints the stack of
    the terminated program. So devices are initialized before this handler is installed. With
    several processes none may exit alone: the service of `jax.distributed` handles the signal.

    Args:
      independent: the processes never wait for each other, so each may exit alone; the handler
        replaces that of `jax.distributed`.
    """
    alone = jax.process_count() == 1
    if not (alone or independent) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def watch_preemption() -> Iterator[Callable[[int], bool]]:
    """Yield `stop(step)`, which returns whether SIGTERM or the first Ctrl-C was received.

    A second Ctrl-C stops at once. With several processes any may receive the signal; they agree on
    the step after which all stop, through the service of `jax.distributed`.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: event.is_set()  # only the main thread may install handlers
        return

    def stop(number: int, _: Any) -> None:
        event.set()
        signal.signal(number, previous[signal.Signals(number)])

    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in previous:
        signal.signal(number, stop)
    try:
        yield lambda step: event.is_set()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
