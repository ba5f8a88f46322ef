"""The training loop, read from top to bottom. Running it again in the same workdir resumes."""

from __future__ import annotations

import functools
import json
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
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
_MAY_CHANGE += ("vae.tile", "training.prompts", "mesh", "sampling", "data.cache_dir", "model.dtype")
_VALIDATION_BATCH = 64


def train(config: Config, workdir: Path) -> TrainState:
    """Trains to `config.training.steps`, from the newest checkpoint in `workdir` if there is one.

    On SIGTERM or the first Ctrl-C it saves and returns early; the same command goes on from there.

    Raises:
      LiditError: when the workdir holds another run, the batch does not divide over the devices,
        or the loss is not finite.
    """
    with ExitStack() as cleanup:
        return _train(config, workdir, cleanup)


def _train(config: Config, workdir: Path, cleanup: ExitStack) -> TrainState:
    """`train`; what it opens is closed by `cleanup`, whatever happens."""
    training = config.training
    mesh = make_mesh(config.mesh)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if training.batch_size % shards:
        raise LiditError(
            f"config.training.batch_size={training.batch_size} does not divide over {shards} "
            f"devices: take a multiple of {shards}"
        )
    checkpoints = cleanup.enter_context(Checkpoints(workdir, training.keep_checkpoints))
    first_step = max(checkpoints.steps(), default=0)
    saved = checkpoints.metadata(first_step) if first_step else None
    if saved:
        _refuse_another_run(config, saved, workdir)
    task = make_task(config)
    if saved:
        _refuse_other_models(task, saved, workdir)
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
        log = cleanup.enter_context(
            RunLog(workdir, training.steps, training.batch_size, first_step)
        )
        log.say(f"{'resuming' if first_step else 'starting'} at step {first_step} in {workdir}")

        step_fn = make_train_step(task.loss, optimizer, config)
        train_step = jax.jit(step_fn, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))
        validate = jax.jit(functools.partial(_valid_sum, task))
        batches = training_batches(
            task.training_records, training.batch_size, config.seed, int(state.position)
        )
        to_devices = functools.partial(_to_devices, sharding=batch_sharding(mesh))

        for step in range(first_step + 1, training.steps + 1):
            state, metrics = train_step(state, frozen, to_devices(next(batches)))
            log.accumulate(metrics)
            last = step == training.steps or stop.is_set()
            if step % training.log_every == 0 or last:
                _refuse_divergence(step, log.flush(step), workdir)
            if step % training.checkpoint_every == 0 or last:
                _refuse_divergence(step, metrics, workdir)
                checkpoints.save(step, state, metadata)
            if stop.is_set():
                log.say(f"stopped at step {step}; run the same command to go on")
                break
            if step % training.eval_every == 0 or last:
                losses = _validation_losses(task, validate, state, frozen, to_devices, shards)
                log.scalars(step, losses)
            if step % training.image_every == 0 or last:
                log.images(step, *task.sample_images(state.ema_params, frozen))
    return state


def _valid_sum(task: Task, params: Any, frozen: Any, batch: Any) -> jax.Array:
    return jnp.sum(task.validation_losses(params, frozen, batch), where=batch["valid"])


def _validation_losses(
    task: Task, validate: Any, state: TrainState, frozen: Any, to_devices: Any, shards: int
) -> dict[str, float]:
    """Mean validation loss of the raw and of the averaged weights over all held-out records."""
    records = len(task.validation_records)
    batch_size = -(-min(records, _VALIDATION_BATCH) // shards) * shards
    sums = {"validation_loss": 0.0, "validation_loss_ema": 0.0}
    for batch in evaluation_batches(task.validation_records, batch_size):
        batch = to_devices(batch)
        sums["validation_loss"] += validate(state.params, frozen, batch)
        sums["validation_loss_ema"] += validate(state.ema_params, frozen, batch)
    return {name: float(value) / records for name, value in sums.items()}


def _to_devices(batch: Any, sharding: jax.sharding.Sharding) -> Any:
    """This process's part of a batch as global arrays."""
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM or Ctrl-C sets: the run saves instead of dying.

    A second Ctrl-C stops at once.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may install handlers
        return

    def stop(number: int, _: Any) -> None:
        event.set()
        signal.signal(number, previous[number])

    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in previous:
        signal.signal(number, stop)
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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


def _refuse_other_models(task: Task, metadata: dict[str, Any], workdir: Path) -> None:
    """Refuses to go on when a frozen model's files are no longer those the run began with."""
    for name in ("encoders", "autoencoder"):
        if metadata.get(name) != task.metadata.get(name):
            raise LiditError(
                f"{workdir} holds a run with another {name.removesuffix('s')} of the same name: "
                "put its files back, or name another workdir"
            )


def _refuse_divergence(step: int, metrics: dict[str, Any], workdir: Path) -> None:
    """Stops before weights that are not finite reach a checkpoint."""
    for name in ("loss", "gradient_norm"):
        value = float(metrics[name])
        if not math.isfinite(value):
            raise LiditError(
                f"the {name.replace('_', ' ')} is {value} at step {step}: lower "
                f"config.optimizer.learning_rate in another workdir; the checkpoints in {workdir} "
                "are intact"
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        nested = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        flat.update(nested if nested is not None else {f"{prefix}{name}": value})
    return flat
