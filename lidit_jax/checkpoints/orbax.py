"""Save and restore checkpoints: train state and metadata, written by Orbax as one item."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers
from orbax.checkpoint.options import AtomicityMode, AtomicityOptions

from lidit_jax.checkpoints.checksums import checksums, verify_checksums
from lidit_jax.checkpoints.migrations import FORMAT, migrate
from lidit_jax.checkpoints.orbax_s3 import register_s3
from lidit_jax.checkpoints.orbax_weights import StoredWeights, explain_read_errors, reason
from lidit_jax.checkpoints.state import TrainState
from lidit_jax.config.schema import TrainingConfig
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import in_bucket

CHECKSUMS = "checksums"
"""Key of the arrays' checksums in the metadata."""


class Checkpoints:
    """Checkpoints of one workdir, saved in the background.

    A checkpoint is complete or absent: on a disk Orbax writes it to a temporary name and renames
    it, in a bucket it writes a commit object last. The metadata (format number, configuration,
    encoders, a checksum of each array) is part of the same item as the state.

    A failed save, as on a full disk, is reported and leaves earlier checkpoints intact. A run of
    one process continues and saves again at the next interval; a run of several stops, because its
    processes may disagree about the failure. If the last save of a run fails, it is an error.
    """

    def __init__(self, workdir: Path, keep: TrainingConfig | None = None):
        """Open `workdir/checkpoints`.

        Args:
          workdir: workdir of the run; a folder, or in a bucket.
          keep: configuration of the checkpoints to keep; None to open read-only.
        """
        folder = workdir / "checkpoints"
        self.folder = folder if in_bucket(folder) else folder.absolute()
        self._commit = None
        if str(self.folder).startswith("s3://"):
            register_s3()
            # For gs:// Orbax already avoids renaming.
            self._commit = AtomicityOptions(mode=AtomicityMode.COMMIT_FILE)
        self._keep = keep
        self._saving: int | None = None
        self._failure = ""
        self._manager = self._open()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        # The run's own error is raised; a failed save is only reported.
        with contextlib.suppress(Exception):
            self.check(wait=True)
            self._manager.close()

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, newest last."""
        return sorted(set(self._manager.all_steps()) - {self._saving})

    def save(
        self,
        step: int,
        state: TrainState,
        metadata: dict[str, Any],
        losses: dict[str, float] | None = None,
    ) -> None:
        """Start a save and return as soon as the state is copied; a step is saved only once.

        Args:
          step: step of the state.
          state: the whole train state.
          metadata: the run's configuration, encoders and so on.
          losses: validation losses and scores at this step, by which the best checkpoint is kept.

        Raises:
          LiditError: when a save of several processes has failed.
        """
        self.check(wait=True)
        if step in self._manager.all_steps():
            return
        self._saving = step
        described = {"format": FORMAT, CHECKSUMS: checksums(state)} | metadata
        try:
            self._manager.save(
                step,
                metrics=losses,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    metadata=ocp.args.JsonSave(described),
                ),
            )
        except Exception as error:  # of the disk, the bucket, another process or any other
            self._failed(error)

    def check(self, wait: bool = False) -> None:
        """Report a failed save, and make room for the next one.

        Args:
          wait: whether to wait for a running save first.

        Raises:
          LiditError: when a save of several processes has failed.
        """
        if self._saving is None or (self._manager.is_saving_in_progress() and not wait):
            return
        try:
            self._manager.wait_until_finished()
            self._saving, self._failure = None, ""
        except Exception as error:
            self._failed(error)

    def restore(self, step: int, shapes: TrainState) -> TrainState:
        """Restore the state of a step, sharded as `shapes` specifies.

        Raises:
          LiditError: when the checkpoint is damaged or belongs to another model.
        """
        expected = self._described(step).get(CHECKSUMS)
        with explain_read_errors(self.folder / str(step)):
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
            )
            verify_checksums(checksums(restored["state"]), expected)
        return restored["state"]

    def weights(self, step: int, name: str) -> StoredWeights:
        """Open `params` or `ema_params` of a step, to be read without the rest of the state.

        Raises:
          LiditError: when the metadata cannot be read, or comes from a newer version.
        """
        expected = self._described(step).get(CHECKSUMS)
        return StoredWeights(self.folder / str(step), name, expected)

    def metadata(self, step: int) -> dict[str, Any]:
        """Return the metadata saved with a step, migrated to the current format.

        Raises:
          LiditError: when it cannot be read, or comes from a newer version.
        """
        described = self._described(step)
        described.pop(CHECKSUMS, None)
        return described

    def wait(self) -> None:
        """Wait until all saves are on disk. Raises `LiditError` if the last one has failed."""
        last = self._saving
        self.check(wait=True)
        if last is not None and self._failure:
            raise LiditError(f"{self._failure}, and run the same command to continue from there")

    def close(self) -> None:
        """Wait for saves and close the folder. Raises as `wait` does."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _open(self, first: bool = True) -> ocp.CheckpointManager:
        keep = self._keep
        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_preservation(keep) if keep else None,
                # Makes Orbax store the losses, which the policy needs after a resume.
                best_fn=_goodness(keep) if keep and keep.keep_best else None,
                best_mode="max",
                atomicity_options=self._commit,
                create=keep is not None,
                read_only=keep is None,
                # Remains of an interrupted save take space that the next one needs.
                cleanup_tmp_directories=first and keep is not None,
                enable_async_checkpointing=keep is not None,
            ),
        )

    def _described(self, step: int) -> dict[str, Any]:
        with explain_read_errors(self.folder / str(step)):
            restored = self._manager.restore(
                step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore())
            )
            return migrate(restored["metadata"], f"checkpoint {self.folder / str(step)}")

    def _failed(self, error: Exception) -> None:
        """Report which save failed and what is intact, and reopen the manager."""
        step, self._saving = self._saving, None
        with contextlib.suppress(Exception):  # it may raise the same error again
            self._manager.close()
        if not in_bucket(self.folder):
            # Its threads may still write there: remains are deleted at the next start.
            for rest in self.folder.glob(f"{step}.*-tmp"):
                shutil.rmtree(rest, ignore_errors=True)
        text = f"the checkpoint of step {step} could not be written ({reason(error)})"
        room = f"make room in {self.folder}"
        if jax.process_count() > 1:
            raise LiditError(f"{text}; earlier ones are intact: {room}, and start again")
        self._manager = self._open(first=False)
        steps = self._manager.all_steps()
        intact = f"that of step {max(steps)} is intact" if steps else "there is no earlier one"
        self._failure = f"{text}; {intact}: {room}"
        print(self._failure, flush=True)


def _preservation(keep: TrainingConfig) -> managers.AnyPreservationPolicy:
    """Return the policy that keeps the newest and, if configured, every n-th and the best."""
    policies: list[managers.PreservationPolicy] = [managers.LatestN(keep.keep_checkpoints)]
    if keep.keep_every:
        policies.append(managers.EveryNSteps(keep.keep_every))
    if keep.keep_best:
        best = managers.BestN(
            get_metric_fn=_goodness(keep),
            reverse=False,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        policies.append(best)
    return managers.AnyPreservationPolicy(policies)


def _goodness(keep: TrainingConfig) -> Callable[[dict[str, float]], float]:
    """Return the function that ranks checkpoints: higher is better, a missing value is worst."""
    sign = -1 if "loss" in keep.best_by else 1
    return lambda metrics: sign * metrics.get(keep.best_by, -sign * math.inf)
