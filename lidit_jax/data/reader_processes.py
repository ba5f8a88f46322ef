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
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    _keep_off_accelerators()
    trainer = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(trainer,), daemon=True).start()


def _keep_off_accelerators() -> None:
    """Reading needs no JAX; whoever uses it by mistake finds the CPU and no memory taken."""
    import jax  # Grain has imported it, so the environment comes too late

    jax.config.update("jax_platforms", "cpu")
    os.environ |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def _end_with(trainer: BaseProcess) -> None:
    """Ends this process once the other one is no more: a daemon outlives one that was killed."""
    trainer.join()
    os._exit(1)
