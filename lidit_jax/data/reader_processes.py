"""Setup of image-reading worker processes: no accelerator, and exit with the parent.

Grain starts these processes by "spawn", so they import their modules, and inherit only the
environment. They end when their batches are closed, or when the training process has ended for any
reason.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

_HELD = {signal.SIGINT, signal.SIGTERM}


@contextmanager
def signals_held() -> Iterator[None]:
    """Delay signals of the process group, so that readers that are started begin without them.

    A reader inherits the delay and ends it once it ignores these signals: one that is still
    importing its modules would be killed otherwise.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_reader(number: int, count: int) -> None:
    """Prepare a reader process, before its first record.

    Signals to the whole process group, such as Ctrl-C or SIGTERM, are handled by the training
    process: it still waits for a batch, then saves, and then ends its readers.

    Args:
      number: index of the process, from 0.
      count: number of processes.
    """
    del number, count
    follow_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)  # see `signals_held`
    _keep_off_accelerators()


def follow_parent() -> None:
    """End this process when its parent process ends, and not before.

    Ctrl-C, which every process of a terminal receives, is handled by the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent, "only a process that another one has started calls this"
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _keep_off_accelerators() -> None:
    """Restrict JAX to the CPU, in case a reader uses it by mistake."""
    import jax  # Grain has imported it, so environment variables have no effect

    jax.config.update("jax_platforms", "cpu")
    os.environ |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def _end_with(parent: BaseProcess) -> None:
    """End this process when the parent has ended: a daemon outlives a killed parent."""
    parent.join()
    os._exit(1)
