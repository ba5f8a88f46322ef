"""Initialization and communication of multi-process jobs, for any launcher."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from lidit_jax.errors import LiditError

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join_processes() -> None:
    """Join a multi-process job if there is one. Call it before using a device.

    The job is detected, in this order, from the three variables JAX_COORDINATOR_ADDRESS (host:port
    of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, which any launcher can set; from Slurm's
    environment; or from a TPU pod's metadata.

    Raises:
      LiditError: when only some of the three variables are set, or the others do not respond.
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


def print_on_main(lines: Iterable[str]) -> None:
    """Print lines on the first process of the job. Call it after `join_processes`."""
    if jax.process_index() == 0:
        for line in lines:
            print(line, flush=True)


def any_process(mine: bool) -> bool:
    """Return whether `mine` is true on any process; all processes must call it."""
    if jax.process_count() == 1:
        return mine
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.any(process_allgather(np.asarray(mine))))


def all_gather(mine: Any) -> list[Any]:
    """Gather a value from every process, in process order; all processes must call it.

    Args:
      mine: JSON-serializable value. If all are equal, only its digest is transferred.
    """
    if jax.process_count() == 1:
        return [mine]
    from jax.experimental.multihost_utils import process_allgather

    text = json.dumps(mine, sort_keys=True).encode()
    digests = process_allgather(np.frombuffer(hashlib.sha256(text).digest(), np.uint8))
    if np.all(digests == digests[0]):
        return [mine] * jax.process_count()
    lengths = process_allgather(np.asarray(len(text))).tolist()
    padded = np.zeros(max(lengths), np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    rows = process_allgather(padded)
    return [json.loads(row[:n].tobytes()) for row, n in zip(rows, lengths, strict=True)]


def barrier(place: str, minutes: float) -> None:
    """Wait until all processes reach the same point of the program.

    Args:
      place: unique name of the point, for the error message.
      minutes: how long to wait; 0 does not wait at all.

    Raises:
      LiditError: when some processes do not arrive in time.
    """
    if jax.process_count() == 1 or not minutes:
        return
    from orbax.checkpoint.multihost import get_barrier_sync_fn

    try:
        get_barrier_sync_fn()(key=f"lidit: {place}", timeout_ms=round(60_000 * minutes))
    except RuntimeError as error:  # raised by the runtime on timeout
        # The runtime counts the processes that arrived and names a missing one.
        reason = str(error).partition("# of tasks")
        told = " ".join("".join(reason[1:] if reason[1] else reason[:1]).split())[:300]
        raise LiditError(
            f"not all processes reached {place!r} within {minutes:g} minutes ({told}): look at the "
            "last lines of the missing ones; the same command continues from the last checkpoint"
        ) from error


def _has_companions() -> bool:
    """Return whether a scheduler started this process as one of several."""
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return True
    if "TPU_WORKER_HOSTNAMES" in os.environ:  # GKE
        several_slices = int(os.environ.get("MEGASCALE_NUM_SLICES") or 1) > 1
        return several_slices or "," in os.environ["TPU_WORKER_HOSTNAMES"]
    return _pod_metadata_names_others()


def _pod_metadata_names_others() -> bool:
    """Return whether this is a TPU VM whose metadata lists other workers or slices."""
    if not (glob.glob("/dev/accel*") or glob.glob("/dev/vfio/*")):
        return False
    if os.environ.get("TPU_SKIP_MDS_QUERY"):
        return False
    workers = _tpu_metadata("worker-network-endpoints")
    return "," in workers or "MEGASCALE_NUM_SLICES" in _tpu_metadata("tpu-env")


def _tpu_metadata(name: str) -> str:
    """Return a metadata attribute of the virtual machine; empty without a metadata server."""
    host = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
    url = f"http://{host}/computeMetadata/v1/instance/attributes/{name}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return ""
