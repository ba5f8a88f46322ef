"""Check before training that all hosts have the same configuration, code and data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from lidit_jax.checkpoints.migrations import FORMAT
from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.parallel.distributed import all_gather
from lidit_jax.training.resume import flat_fields
from lidit_jax.training.tasks import Task

_MAY_DIFFER = "config.data.cache_dir"
"""Field that may differ between hosts: the folder of cached data."""


def check_program_consistency(config: Config, workdir: Path) -> None:
    """Check that all processes agree in configuration, workdir, code and packages.

    All processes call it, and all raise. It comes before anything is read or written.

    Raises:
      LiditError: when they differ; names the first difference and its process.
    """
    facts = {f"config.{name}": value for name, value in _fields(config)}
    facts |= {"--workdir": str(workdir), "checkpoint format": FORMAT, "code": _code()}
    facts |= {name: metadata.version(name) for name in ("lidit-jax", "jax", "jaxlib")}
    facts.pop(_MAY_DIFFER)
    _refuse_difference(facts, "start the same command from the same commit on every host")


def check_data_consistency(task: Task, position: int) -> None:
    """Check that all processes have the same data and will train on different records.

    Args:
      task: with the data of this process.
      position: batches already consumed.

    Raises:
      LiditError: when they do not; names the difference.
    """
    data = task.data
    facts = {
        "training records": len(data),
        "rows of a validation": data.validation_rows,
        "image shapes": str(data.shapes),
        "frozen models and data": hashlib.sha256(
            json.dumps(task.provenance.to_json(), sort_keys=True).encode()
        ).hexdigest()[:16],
    }
    _refuse_difference(facts, "give every host the same data and the same files of frozen models")
    if jax.process_count() == 1:
        return
    plan = data.order.batch(position).records.tolist()
    own = data.order.batch(position, jax.process_index(), jax.process_count())
    shares = all_gather(own.records.tolist())
    if sorted(record for share in shares for record in share) != sorted(plan):
        raise LiditError(
            f"the processes' records of batch {position} are not its {len(plan)} records, each "
            "once: give every process another number, and all the same count "
            "(JAX_PROCESS_ID, JAX_NUM_PROCESSES)"
        )


def _refuse_difference(facts: dict[str, Any], remedy: str) -> None:
    first, *others = all_gather(facts)
    for number, theirs in enumerate(others, start=1):
        for name, value in first.items():
            if theirs[name] != value:
                raise LiditError(
                    f"process {number} has {name}={theirs[name]!r}, process 0 has {value!r}: "
                    f"{remedy}"
                )


def _code() -> str:
    """Return a digest of this package's source."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _fields(config: Config) -> Iterable[tuple[str, Any]]:
    return flat_fields(config.to_dict()).items()
