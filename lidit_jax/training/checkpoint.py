"""Checkpoints: the train state and its metadata, written by Orbax as one item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from lidit_jax.errors import LiditError
from lidit_jax.training.state import TrainState

FORMAT = 1


class Checkpoints:
    """The checkpoints of one workdir, saved in the background.

    A checkpoint is complete or absent: Orbax writes it beside its name and renames it. The metadata
    (format number, configuration, encoders) is part of the same item as the state.
    """

    def __init__(self, workdir: Path, keep: int = 3, read_only: bool = False):
        """Opens `workdir/checkpoints`, creating it unless `read_only`."""
        self.folder = (workdir / "checkpoints").absolute()
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=None if read_only else keep,
                create=not read_only,
                read_only=read_only,
                enable_async_checkpointing=not read_only,
            ),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, the newest last."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, metadata: dict[str, Any]) -> None:
        """Starts a save and returns as soon as the state is copied; a step is saved once."""
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                metadata=ocp.args.JsonSave({"format": FORMAT} | metadata),
            ),
        )

    def restore(self, step: int, shapes: TrainState) -> TrainState:
        """The state of a step, placed as `shapes` (with shardings) asks.

        Raises:
          LiditError: when the checkpoint is damaged or belongs to another model.
        """
        self.metadata(step)
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
            )
        except (ValueError, KeyError, OSError, TypeError) as error:
            raise self._unreadable(step, error) from error
        return restored["state"]

    def restore_weights(self, step: int, name: str) -> Any:
        """Only `params` or `ema_params` of a step, as arrays on the host's first device."""
        path = self.folder / str(step) / "state"
        try:
            with ocp.PyTreeCheckpointer() as checkpointer:
                found = checkpointer.metadata(path).item_metadata
                if found is None:
                    raise OSError("the arrays cannot be read")
                tree = found.tree[name]
                device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
                target = {
                    name: jax.tree.map(
                        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
                        tree,
                    )
                }
                restored = checkpointer.restore(
                    path,
                    args=ocp.args.PyTreeRestore(
                        item=target,
                        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
                        partial_restore=True,
                    ),
                )
        except (ValueError, KeyError, OSError, TypeError) as error:
            raise self._unreadable(step, error) from error
        return restored[name]

    def metadata(self, step: int) -> dict[str, Any]:
        """What `save` was given beside the state.

        Raises:
          LiditError: when it cannot be read, or comes from a newer version.
        """
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore())
            )
            metadata = restored["metadata"]
            number = metadata["format"]
        except (ValueError, KeyError, OSError, TypeError) as error:
            raise self._unreadable(step, error) from error
        if number > FORMAT:
            raise LiditError(
                f"checkpoint {self.folder / str(step)} has format {number}, newer than this "
                f"version's {FORMAT}: upgrade lidit-jax"
            )
        return metadata

    def wait(self) -> None:
        """Returns when all saves are on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves and lets go of the folder."""
        self._manager.close()

    def _unreadable(self, step: int, error: Exception) -> LiditError:
        reason = (
            json.dumps(str(error).splitlines()[0][:200]) if str(error) else type(error).__name__
        )
        return LiditError(
            f"cannot restore checkpoint {self.folder / str(step)}: {reason}; delete that folder to "
            "go on from the one before"
        )
