"""Report, on resuming, of changes in the training data since the checkpoint.

A checkpoint stores the number of records and a fingerprint of them. Digests per record (16 bytes)
are stored in `data/FINGERPRINT.npy` of the workdir, one file per version of the data.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.data.contents import Contents, difference
from lidit_jax.io.output import atomic_file


def describe_data_changes(contents: Contents | None, saved: Provenance, workdir: Path) -> list[str]:
    """Describe how the dataset differs from the checkpoint's, in lines; none if it is the same or
    the checkpoint is too old to store it.

    Args:
      contents: the current training data.
      saved: the checkpoint's provenance.
      workdir: of the run.
    """
    before = saved.data
    if before is None or contents is None or before == contents.description:
        return []
    now, then = contents.records, before["records"]
    what = "other records than before"
    digests = _recalled(before["fingerprint"], workdir)
    if digests is not None and contents.digests is not None:
        counts = difference(digests, contents.digests)
        what = ", ".join(f"{count} {kind}" for kind, count in counts._asdict().items() if count)
    return [
        f"the training data has changed since the checkpoint: {what} ({then} records then, {now} "
        "now); the run goes on with today's"
    ]


def save_data_digests(contents: Contents | None, workdir: Path) -> None:
    """Save the digests of the current records for later comparisons."""
    if contents is None or contents.digests is None or jax.process_index() != 0:
        return
    file = _file(contents.fingerprint, workdir)
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as stream:
        np.save(stream, contents.digests)


def _recalled(fingerprint: str, workdir: Path) -> np.ndarray | None:
    """Load the digests of an earlier version of the data; None if they are missing."""
    file = _file(fingerprint, workdir)
    if not file.exists():
        return None
    try:
        with file.open("rb") as stream:
            return np.load(stream)
    except (ValueError, EOFError):  # damaged, which must not stop a run
        return None


def _file(fingerprint: str, workdir: Path) -> Path:
    return workdir / "data" / f"{fingerprint}.npy"
