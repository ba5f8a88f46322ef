"""Joining the processes of one job, wherever they were started."""

from __future__ import annotations

import os

import jax

from lidit_jax.errors import LiditError

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join_processes() -> None:
    """Makes this process part of its job; alone it changes nothing. Call it before using a device.

    The job is found, in this order, in the three variables JAX_COORDINATOR_ADDRESS (host:port of
    process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, which any launcher can set; in Slurm's
    environment; or in a TPU pod's metadata.

    Raises:
      LiditError: when only some of the three variables are set, or the others do not answer.
    """
    given = [name for name in _VARIABLES if os.environ.get(name)]
    if given and len(given) < len(_VARIABLES):
        lacking = ", ".join(name for name in _VARIABLES if name not in given)
        raise LiditError(f"{', '.join(given)} set without {lacking}: set all three or none")
    try:
        if given:
            address, count, number = (os.environ[name] for name in _VARIABLES)
            jax.distributed.initialize(address, int(count), int(number))
        elif _has_companions():
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise LiditError(f"cannot join the other processes: {reason}") from error


def _has_companions() -> bool:
    """Whether a scheduler says that this process is one of several."""
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return int(os.environ.get("SLURM_NTASKS", "1")) > 1 or len(hosts) > 1
