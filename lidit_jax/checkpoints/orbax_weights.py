"""Read weights from an Orbax checkpoint, all or one at a time, without the rest of the state."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Sharding, SingleDeviceSharding

from lidit_jax.checkpoints.checksums import checksums, verify_checksums
from lidit_jax.errors import LiditError
from lidit_jax.weights.parameter_paths import by_path


class StoredWeights:
    """`params` or `ema_params` of one checkpoint, read on demand."""

    def __init__(self, checkpoint: Path, name: str, expected: dict[str, int] | None):
        """Store the location; nothing is read yet.

        Args:
          checkpoint: the checkpoint's folder, `checkpoints/STEP`.
          name: `params` or `ema_params`.
          expected: checksums of the whole state by path; None for old checkpoints without them.
        """
        self._checkpoint, self._name, self._expected = checkpoint, name, expected

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter by its path, without reading the arrays."""
        return {path: tuple(leaf.shape) for path, leaf in self._leaves.items()}

    def read(self, path: str) -> np.ndarray:
        """Return one parameter, as it was saved."""
        return self._restore({path: None})[path]

    def load(self, shardings: Any = None, *, partly: bool = False) -> Any:
        """Load all parameters, nested, straight to their shards.

        Args:
          shardings: placement; parameters that it lacks go to the host's first device.
          partly: whether to leave those out instead.
        """
        known = by_path(shardings or {})
        first = SingleDeviceSharding(jax.local_devices()[0])
        paths = [path for path in self._leaves if path in known or not partly]
        places = {path: known.get(path, first) for path in paths}
        return flax.traverse_util.unflatten_dict(self._restore(places), sep="/")

    @functools.cached_property
    def _leaves(self) -> dict[str, Any]:
        with explain_read_errors(self._checkpoint), ocp.PyTreeCheckpointer() as checkpointer:
            found = checkpointer.metadata(self._checkpoint / "state").item_metadata
            if found is None:
                raise OSError("the arrays cannot be read")
            return by_path(found.tree[self._name])

    def _restore(self, places: dict[str, Sharding | None]) -> dict[str, Any]:
        """Restore the parameters of `places` to their shardings; None is host memory, as NumPy.

        Their checksums are verified, if the checkpoint has them.
        """
        leaves = {path: self._leaves[path] for path in places}
        flat = {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=places[path])
            for path, leaf in leaves.items()
        }
        target = {self._name: flax.traverse_util.unflatten_dict(flat, sep="/")}
        arguments = ocp.args.PyTreeRestore(
            item=target,
            restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            partial_restore=True,
        )
        with explain_read_errors(self._checkpoint), ocp.PyTreeCheckpointer() as checkpointer:
            restored = checkpointer.restore(self._checkpoint / "state", args=arguments)
            nested = restored[self._name]
            if self._expected is not None:
                read = {f".{self._name}{key}": value for key, value in checksums(nested).items()}
                verify_checksums(read, self._expected)
        return by_path(nested)


@contextlib.contextmanager
def explain_read_errors(checkpoint: Path) -> Iterator[None]:
    """Convert any error of reading a checkpoint into a `LiditError` that names it."""
    try:
        yield
    except LiditError:
        raise
    except Exception as error:
        raise LiditError(
            f"cannot restore checkpoint {checkpoint}: {reason(error)}; delete that folder to "
            "continue from the previous one"
        ) from error


def reason(error: Exception) -> str:
    """Return the first line of an error's message, quoted; Orbax's messages span pages."""
    text = f"it lacks {error}" if isinstance(error, KeyError) else str(error).strip()
    return json.dumps(text.splitlines()[0][:200]) if text else type(error).__name__
