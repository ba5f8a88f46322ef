"""libtpu on machines without a TPU: what it must be told to compile, and to keep quiet."""

from __future__ import annotations

import os
from pathlib import Path

_ENVIRONMENT = {
    # No metadata server answers outside the cloud, and nobody else holds a TPU here.
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    # Any valid type will do: the compiler is told its topology by name.
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


def has_tpu() -> bool:
    """Whether this machine has a TPU, by its device files."""
    devices = Path("/dev")
    return any(devices.glob("accel*")) or any(devices.glob("vfio/[0-9]*"))


def prepare_libtpu() -> None:
    """Sets what libtpu reads when it is loaded, unless this machine has a TPU.

    Without it, an installed libtpu greets every program with a page of warnings.
    """
    if has_tpu():
        return
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
