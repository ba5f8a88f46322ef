"""Environment variables for libtpu on machines without a TPU, for ahead-of-time compilation."""

from __future__ import annotations

import os
from pathlib import Path

_ENVIRONMENT = {
    # Outside the cloud there is no metadata server, and no other process holds a TPU.
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    # Any valid type will do: the compiler receives the topology by name.
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


def has_tpu() -> bool:
    """Return whether this machine has a TPU, judging by its device files."""
    devices = Path("/dev")
    return any(devices.glob("accel*")) or any(devices.glob("vfio/[0-9]*"))


def prepare_libtpu() -> None:
    """Set the environment variables that libtpu reads, unless this machine has a TPU.

    Without them, an installed libtpu prints a page of warnings in every program.
    """
    if has_tpu():
        return
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
