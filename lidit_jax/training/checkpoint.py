"""Checkpoints: the train state and its metadata, written by Orbax as one item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from lidit_jax.config import TrainingConfig
from lidit_jax.errors import LiditError
from lidit_jax.migrations import FORMAT, migrate
from lidit_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints of one workdir, saved in the background.

    A checkpoint is complete or absent: Orbax writes it beside its name and renames it. The metadata
    (format number, configuration, encoders) is part of the same item as the state.
    """

    def __init__(self, workdir: Path, keep: TrainingConfig | None = None):
        """Opens `workdir/checkpoints`.

        Args:
          workdir: of the run.
          keep: says which checkpoints stay; without it nothing can be written.
        """
        self.folder = (workdir / "checkpoints").absolute()
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_preservation(keep) if keep else None,
                # Makes Orbax write the losses down, for the policy after a resume.
                best_fn=_best_loss if keep and keep.keep_best else None,
                best_mode="min",
                create=keep is not None,
                read_only=keep is None,
                enable_async_checkpointing=keep is not None,
            ),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, the newest last."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        state: TrainState,
        metadata: dict[str, Any],
        losses: dict[str, float] | None = None,
    ) -> None:
        """Starts a save and returns as soon as the state is copied; a step is saved once.

        Args:
          step: of the state.
          state: all of it.
          metadata: the run's configuration, encoders and the like.
          losses: of the validation at this step, by which the best checkpoint is kept.
        """
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            metrics=losses,
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

    def restore_weights(self, step: int, name: str, shardings: Any = None) -> Any:
        """Only `params` or `ema_params` of a step.

        Args:
          step: of the checkpoint.
          name: of the part of the state.
          shardings: where to put the arrays; what it lacks goes to the host's first device.
        """
        path = self.folder / str(step) / "state"
        try:
            with ocp.PyTreeCheckpointer() as checkpointer:
                found = checkpointer.metadata(path).item_metadata
                if found is None:
                    raise OSError("the arrays cannot be read")
                known = flax.traverse_util.flatten_dict(shardings or {})
                device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
                flat = {
                    path: jax.ShapeDtypeStruct(
                        leaf.shape, leaf.dtype, sharding=known.get(path, device)
                    )
                    for path, leaf in flax.traverse_util.flatten_dict(found.tree[name]).items()
                }
                target = {name: flax.traverse_util.unflatten_dict(flat)}
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
        """What `save` was given beside the state, in today's format.

        Raises:
          LiditError: when it cannot be read, or comes from a newer version.
        """
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore())
            )
            return migrate(restored["metadata"], f"checkpoint {self.folder / str(step)}")
        except (ValueError, KeyError, OSError, TypeError) as error:
            raise self._unreadable(step, error) from error

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


def _preservation(keep: TrainingConfig) -> managers.PreservationPolicy:
    """The newest, and where the configuration asks for them every n-th and the best."""
    policies: list[managers.PreservationPolicy] = [managers.LatestN(keep.keep_checkpoints)]
    if keep.keep_every:
        policies.append(managers.EveryNSteps(keep.keep_every))
    if keep.keep_best:
        best = managers.BestN(
            get_metric_fn=_best_loss,
            reverse=True,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        policies.append(best)
    return managers.AnyPreservationPolicy(policies)


def _best_loss(losses: dict[str, float]) -> float:
    """By which checkpoints are compared; the lower, the better."""
    return losses["validation_loss_ema"]
