"""Train step and validation, compiled for each image shape of the data.

The shapes are compiled in the order of their first use: the first one trains while the others are
compiled.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lidit_jax.checkpoints.state import TrainState
from lidit_jax.config.schema import Config
from lidit_jax.parallel.mesh import BATCH_AXES, replicated
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES
from lidit_jax.training.compile_ahead import CompileAhead, abstract
from lidit_jax.training.device_prefetch import DevicePrefetch
from lidit_jax.training.step import Batch, make_train_step
from lidit_jax.training.tasks import Task

_VALIDATION_BATCH = 64


class CompiledSteps:
    """Programs of a run for every image shape; its methods return each when it is ready."""

    def __init__(
        self,
        task: Task,
        config: Config,
        mesh: Mesh,
        prefetch: DevicePrefetch,
        ahead: CompileAhead,
        tell: Callable[[str], None],
    ):
        """Bind the task to the devices.

        Args:
          task: to train.
          config: of the run.
          mesh: of all devices.
          prefetch: of the task's batches.
          ahead: compiles the programs.
          tell: prints a line.
        """
        self._task, self._config, self._mesh = task, config, mesh
        self._prefetch, self._ahead, self._tell = prefetch, ahead, tell
        shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
        rows = min(task.data.validation_rows, _VALIDATION_BATCH)
        self._validation_batch = -(-rows // shards) * shards

    def begin(self, state: Any, frozen: Any, rate: Any, position: int, steps: int) -> None:
        """Queue all programs of the next steps, in the order of their first use.

        Args:
          state: shapes and shardings of the state, which the step donates.
          frozen: the task's frozen arrays, already sharded.
          rate: learning rate of the steps, on the devices.
          position: batches already consumed.
          steps: number of steps to train.
        """
        frozen, rate = abstract(frozen), abstract(rate)
        step = jax.jit(
            make_train_step(self._task.loss, self._config, self._task.encode),
            donate_argnums=0,
            out_shardings=(
                jax.tree.map(lambda leaf: leaf.sharding, state),
                replicated(self._mesh),
            ),
        )
        for bucket in self._task.data.order.buckets(position, position + steps):
            self._add(
                self._step_name(bucket),
                lambda bucket=bucket: step.lower(
                    state, frozen, self._prefetch.training_example(bucket), rate
                ),
            )
        validate = jax.jit(functools.partial(_valid_sum, self._task))
        for bucket in self._task.data.validation_buckets:
            self._add(
                self._validation_name(bucket),
                lambda bucket=bucket: validate.lower(
                    state.params,
                    frozen,
                    self._prefetch.validation_example(bucket, self._validation_batch),
                ),
            )

    def step(self, bucket: int) -> Callable[..., Any]:
        """Return the compiled train step for a bucket's image shape."""
        return self._ahead.get(self._step_name(bucket), self._tell)

    def validation_losses(self, state: TrainState, frozen: Any) -> dict[str, float]:
        """Return the mean validation loss of the raw and the EMA weights over all held-out rows."""
        sums = {"validation_loss": 0.0, "validation_loss_ema": 0.0}
        for batch in self._prefetch.validation(self._validation_batch):
            validate = self._ahead.get(self._validation_name(batch.bucket), self._tell)
            sums["validation_loss"] += validate(state.params, frozen, batch.arrays)
            sums["validation_loss_ema"] += validate(state.ema_params, frozen, batch.arrays)
        rows = self._task.data.validation_rows
        return {name: float(value) / rows for name, value in sums.items()}

    def news(self) -> dict[str, float]:
        """Tell of programs that were compiled since the last call.

        Returns:
          The number of programs and the seconds that they took so far; empty without news.
        """
        lines = self._ahead.news()
        for line in lines:
            self._tell(line)
        if not lines:
            return {}
        return {"compiled_programs": self._ahead.count, "compile_seconds": self._ahead.seconds}

    def _add(self, name: str, lower: Callable[[], Any]) -> None:
        def lower_on_mesh() -> Any:
            with jax.set_mesh(self._mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
                return lower()

        self._ahead.add(name, lower_on_mesh)

    def _step_name(self, bucket: int) -> str:
        return f"the step for {self._size(bucket)}"

    def _validation_name(self, bucket: int) -> str:
        return f"the validation for {self._size(bucket)}"

    def _size(self, bucket: int) -> str:
        height, width = self._task.data.shapes[bucket]
        return f"{width}x{height} px"


def _valid_sum(task: Task, params: Any, frozen: Any, batch: Batch) -> jax.Array:
    losses = task.validation_losses(params, frozen, task.encode(frozen, batch))
    return jnp.sum(losses, where=batch["valid"])
