"""What a process does that only reads pictures: it stays off the accelerator, and ends in time.

Grain starts such processes afresh ("spawn"), so they import what they read with, and inherit
nothing but the environment. They end when their batches are closed, or when the process that trains
has gone, whatever took it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess


def begin_reader(number: int, count: int) -> None:
    """Prepares a reading process, before its first record.

    A signal to the whole process group, such as Ctrl-C or SIGTERM, is left to the process that
    trains: it still waits for a batch, then saves, and then ends its readers.

    Args:
      number: of the process, from 0.
      count: how many there are.
    """
    del number, count
    follow_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _keep_off_accelerators()


def follow_parent() -> None:
    """Lets this process end when the one that has started it ends, and not before.

    Ctrl-C, which every process of a terminal gets, is left to that one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent, "only a process that another one has started calls this"
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _keep_off_accelerators() -> None:
    """Reading needs no JAX; whoever uses it by mistake finds the CPU and no memory taken."""
    import jax  # Grain has imported it, so the environment comes too late

    jax.config.update("jax_platforms", "cpu")
    os.environ |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def _end_with(parent: BaseProcess) -> None:
    """Ends this process once the other one is no more: a daemon outlives one that was killed."""
    parent.join()
    os._exit(1)
