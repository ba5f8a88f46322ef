"""The training loop, read from top to bottom. Running it again in the same workdir resumes."""

from __future__ import annotations

import functools
import json
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from clu import parameter_overview

from lidit_jax.config import Config
from lidit_jax.data.pipeline import evaluation_batches, training_batches
from lidit_jax.errors import LiditError
from lidit_jax.output import atomic_file
from lidit_jax.parallel.mesh import batch_sharding, make_mesh, replicated
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, shapes_on
from lidit_jax.recipes import config_from_json
from lidit_jax.training.checkpoint import Checkpoints
from lidit_jax.training.run_log import RunLog
from lidit_jax.training.state import TrainState, create_state, make_optimizer
from lidit_jax.training.step import make_train_step
from lidit_jax.training.tasks import Task, make_task

# What a resumed run may change: everything else would silently make it another run.
_MAY_CHANGE = ("training.steps", "training.log_every", "training.eval_every")
_MAY_CHANGE += ("training.image_every", "training.checkpoint_every", "training.keep_checkpoints")
_MAY_CHANGE += ("training.prompts", "mesh", "sampling", "data.cache_dir")


def train(config: Config, workdir: Path) -> TrainState:
    """Trains to `config.training.steps`, from the newest checkpoint in `workdir` if there is one.

    On SIGTERM it saves and returns early; the same command goes on from there.

    Raises:
      LiditError: when the workdir holds another run, the batch does not divide over the devices,
        or the loss is not finite.
    """
    training = config.training
    mesh = make_mesh(config.mesh)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if training.batch_size % shards:
        raise LiditError(
            f"config.training.batch_size={training.batch_size} does not divide over {shards} "
            f"devices: take a multiple of {shards}"
        )
    checkpoints = Checkpoints(workdir, training.keep_checkpoints)
    first_step = checkpoints.latest_step() or 0
    if first_step:
        _refuse_another_run(config, checkpoints.metadata(first_step), workdir)
    task = make_task(config)
    optimizer = make_optimizer(config)

    # The state is created, or restored, already sharded: no device ever holds it whole.
    create = functools.partial(create_state, task.init, optimizer, config)
    with nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        shapes = shapes_on(mesh, jax.eval_shape(create))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    frozen = jax.device_put(task.frozen, replicated(mesh))
    metadata = {"config": json.loads(config.to_json())} | task.metadata

    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES), _stop_signal() as stop:
        if first_step:
            state = checkpoints.restore(first_step, shapes)
        else:
            state = jax.jit(lambda: nn.unbox(create()), out_shardings=shardings)()
        _describe(state, config, workdir)
        log = RunLog(workdir, training.steps, training.batch_size, first_step)
        log.say(f"{'resuming' if first_step else 'starting'} at step {first_step} in {workdir}")

        step_fn = make_train_step(task.loss, optimizer, config)
        train_step = jax.jit(step_fn, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))
        validate = jax.jit(task.validation_loss)
        batches = training_batches(
            task.training_records, training.batch_size, config.seed, int(state.position)
        )
        to_devices = functools.partial(_to_devices, sharding=batch_sharding(mesh))

        for step in range(first_step + 1, training.steps + 1):
            state, metrics = train_step(state, frozen, to_devices(next(batches)))
            log.accumulate(metrics)
            last = step == training.steps or stop.is_set()
            if step % training.log_every == 0 or last:
                values = log.flush(step)
                if not math.isfinite(values["loss"]):
                    raise LiditError(
                        f"the loss is {values['loss']} at step {step}: lower "
                        "config.optimizer.learning_rate; the last checkpoint is intact"
                    )
            if step % training.checkpoint_every == 0 or last:
                checkpoints.save(step, state, metadata)
            if stop.is_set():
                log.say(f"stopped at step {step}; run the same command to go on")
                break
            if step % training.eval_every == 0 or last:
                log.scalars(step, _validation_losses(task, validate, state, frozen, to_devices))
            if step % training.image_every == 0 or last:
                log.images(step, *task.sample_images(state.ema_params, frozen))
        log.close()
        checkpoints.close()
    return state


def _validation_losses(
    task: Task, validate: Any, state: TrainState, frozen: Any, to_devices: Any
) -> dict[str, float]:
    """Mean validation loss of the raw and of the averaged weights over all held-out batches."""
    batch_size = min(64, len(task.validation_records))
    sums = {"validation_loss": 0.0, "validation_loss_ema": 0.0}
    count = 0
    for batch in evaluation_batches(task.validation_records, batch_size):
        batch = to_devices(batch)
        sums["validation_loss"] += validate(state.params, frozen, batch)
        sums["validation_loss_ema"] += validate(state.ema_params, frozen, batch)
        count += 1
    return {name: float(value) / count for name, value in sums.items()}


def _to_devices(batch: Any, sharding: jax.sharding.Sharding) -> Any:
    """This process's part of a batch as global arrays."""
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM sets: a preempted run saves instead of dying."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may install handlers
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, previous)


def _describe(state: TrainState, config: Config, workdir: Path) -> None:
    """Leaves the configuration and a table of all parameters in the workdir."""
    if jax.process_index() == 0:
        with atomic_file(workdir / "config.json") as file:
            file.write(config.to_json().encode())
        with atomic_file(workdir / "parameters.txt") as file:
            table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
            file.write(table.encode())


def _refuse_another_run(config: Config, metadata: dict[str, Any], workdir: Path) -> None:
    """Refuses to go on with a configuration that would make it another run."""
    saved = config_from_json(json.dumps(metadata["config"]))
    before, now = _flat(json.loads(saved.to_json())), _flat(json.loads(config.to_json()))
    for name, value in now.items():
        if before[name] != value and not name.startswith(_MAY_CHANGE):
            raise LiditError(
                f"{workdir} holds a run with config.{name}={before[name]!r}, not {value!r}: name "
                "another workdir, or set it back"
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        nested = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        flat.update(nested if nested is not None else {f"{prefix}{name}": value})
    return flat
