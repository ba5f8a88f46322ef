"""The weights in a checkpoint that Orbax wrote: one of them or all, and never the rest."""

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
    """`params` or `ema_params` of one checkpoint, read when they are asked for."""

    def __init__(self, checkpoint: Path, name: str, expected: dict[str, int] | None):
        """Reads nothing yet.

        Args:
          checkpoint: its folder, `checkpoints/STEP`.
          name: of the part of the state.
          expected: checksums of the whole state by the names in it; old checkpoints have none.
        """
        self._checkpoint, self._name, self._expected = checkpoint, name, expected

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter by its path; the arrays are not read."""
        return {path: tuple(leaf.shape) for path, leaf in self._leaves.items()}

    def read(self, path: str) -> np.ndarray:
        """One parameter, as it was saved."""
        return self._restore({path: None})[path]

    def load(self, shardings: Any = None) -> Any:
        """All parameters, nested, straight to their shards.

        Args:
          shardings: where to put them; what it lacks goes to the host's first device.
        """
        known = by_path(shardings or {})
        first = SingleDeviceSharding(jax.local_devices()[0])
        places = {path: known.get(path, first) for path in self._leaves}
        return flax.traverse_util.unflatten_dict(self._restore(places), sep="/")

    @functools.cached_property
    def _leaves(self) -> dict[str, Any]:
        with explain_read_errors(self._checkpoint), ocp.PyTreeCheckpointer() as checkpointer:
            found = checkpointer.metadata(self._checkpoint / "state").item_metadata
            if found is None:
                raise OSError("the arrays cannot be read")
            return by_path(found.tree[self._name])

    def _restore(self, places: dict[str, Sharding | None]) -> dict[str, Any]:
        """The parameters that have a place, there; None is NumPy's memory, without a second copy.

        They are proven to be what was saved, where the checkpoint can tell.
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
    """Names the checkpoint that cannot be read; TensorStore's errors are of many kinds."""
    try:
        yield
    except LiditError:
        raise
    except Exception as error:
        raise LiditError(
            f"cannot restore checkpoint {checkpoint}: {reason(error)}; delete that folder to go on "
            "from the one before"
        ) from error


def reason(error: Exception) -> str:
    """The first line of what an error says, quoted; Orbax's go on for pages."""
    text = f"it lacks {error}" if isinstance(error, KeyError) else str(error).strip()
    return json.dumps(text.splitlines()[0][:200]) if text else type(error).__name__
