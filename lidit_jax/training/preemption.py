"""When a run should stop early: a signal, on which all processes agree once there are steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import multihost_utils


class Terminated(BaseException):
    """SIGTERM came where there is nothing to save; like KeyboardInterrupt no mistake to handle."""


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """SIGTERM raises `Terminated`, until `watch_preemption` takes over.

    libtpu, which JAX loads when it looks for devices, installs a handler that prints the stack of
    the program that it ends. So the devices are looked for before this one is installed. Of several
    processes none may leave alone: there the service of `jax.distributed` keeps the signal.
    """
    alone = jax.process_count() == 1
    if not alone or threading.current_thread() is not threading.main_thread():
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
    """Gives `stop(step)`: whether SIGTERM or the first Ctrl-C came, so that the run saves and ends.

    A second Ctrl-C stops at once. Of several processes any may be told; they agree on a step after
    which all stop, through the service that `jax.distributed` keeps.
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
