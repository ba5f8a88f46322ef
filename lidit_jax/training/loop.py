"""Training loop with checkpoints, validation and logging; it resumes in the same workdir."""

from __future__ import annotations

import functools
import math
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from clu import parameter_overview
from jax.sharding import Mesh

from lidit_jax.checkpoints.local import LocalCheckpoints
from lidit_jax.checkpoints.orbax import Checkpoints
from lidit_jax.checkpoints.state import TrainState, create_state
from lidit_jax.config.schema import Config
from lidit_jax.data.pipeline import evaluation_batches
from lidit_jax.io.output import atomic_file
from lidit_jax.parallel.distributed import barrier, print_on_main
from lidit_jax.parallel.mesh import (
    BATCH_AXES,
    batch_sharding,
    check_divisions,
    make_mesh,
    replicated,
)
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, sharded_shapes
from lidit_jax.training.data_changes import describe_data_changes, save_data_digests
from lidit_jax.training.device_prefetch import DevicePrefetch
from lidit_jax.training.guards import SkippedUpdates, Watchdog, guarded_step
from lidit_jax.training.host_consistency import check_data_consistency, check_program_consistency
from lidit_jax.training.image_steps import is_image_step
from lidit_jax.training.initialization import (
    encoder_change_warning,
    inherited_statistics,
    initialization_summary,
    initialize_from_run,
)
from lidit_jax.training.monitoring.profiling import Profiler
from lidit_jax.training.monitoring.run_log import RunLog
from lidit_jax.training.optimizers import make_optimizer, rate_of
from lidit_jax.training.preemption import watch_preemption
from lidit_jax.training.resume import check_same_models, check_same_run, stored_provenance
from lidit_jax.training.step import make_train_step
from lidit_jax.training.tasks import Task, make_task

_VALIDATION_BATCH = 64
_EARLY_STEPS = 5
"""Step after which the speed is first printed, if `log_every` is larger."""


def train(config: Config, workdir: Path) -> TrainState:
    """Train to `config.training.steps`, from the newest checkpoint in `workdir` if there is one.

    On SIGTERM or the first Ctrl-C it saves and returns early; the same command resumes.

    Raises:
      LiditError: when the workdir holds another run, the mesh does not divide the model or the
        batch, the hosts do not agree, many updates in a row were not finite, or the last checkpoint
        could not be written.
    """
    with ExitStack() as cleanup:
        return _train(config, workdir, cleanup)


def _train(config: Config, workdir: Path, cleanup: ExitStack) -> TrainState:
    """Run `train`, registering everything it opens with `cleanup`."""
    training, begun = config.training, time.time()
    check_program_consistency(config, workdir)
    mesh = make_mesh(config.mesh)
    check_divisions(config, mesh)
    checkpoints = cleanup.enter_context(Checkpoints(workdir, training))
    local = None
    if training.local_checkpoints:
        local = cleanup.enter_context(LocalCheckpoints(workdir, training, mesh))
    first_step, source = _newest(checkpoints, local)
    saved = source.metadata(first_step) if first_step else None
    before = stored_provenance(saved, source.folder / str(first_step)) if saved else None
    if saved:
        check_same_run(config, saved, workdir)
    task = make_task(config, inherited_statistics(config, before, workdir))
    if before:
        check_same_models(task, before, workdir)
        print_on_main(describe_data_changes(task.contents, before, workdir))
    optimizer = make_optimizer(config)

    # The state is created or restored sharded: no device ever holds all of it.
    create = functools.partial(create_state, task.init, optimizer, config)
    with nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        shapes = sharded_shapes(mesh, jax.eval_shape(create))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    frozen = jax.device_put(task.frozen, task.frozen_shardings(mesh))
    rate = jax.device_put(rate_of(config), replicated(mesh))
    fresh: list[str] = []
    metadata = {"config": config.to_dict()} | task.provenance.to_json()

    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES), watch_preemption() as stop:
        if first_step:
            state = source.restore(first_step, shapes)
        else:
            state = jax.jit(lambda: nn.unbox(create()), out_shardings=shardings)()
            if training.init_from:
                state, fresh = initialize_from_run(state, config)
        check_data_consistency(config, task, int(state.position))
        _describe(state, config, workdir)
        save_data_digests(task.contents, workdir)
        sizes = (training.steps, training.batch_size, first_step, task.training_flops)
        log = cleanup.enter_context(RunLog(workdir, *sizes, begun, config))
        log.say(f"{'resuming' if first_step else 'starting'} at step {first_step} in {workdir}")
        if not first_step and training.init_from:
            log.say(initialization_summary(training.init_from, fresh))
            print_on_main(encoder_change_warning(task.provenance.encoders, training.init_from))

        step_fn = make_train_step(task.loss, config, task.encode)
        train_step = jax.jit(step_fn, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))
        validate = jax.jit(functools.partial(_valid_sum, task))
        prefetch = DevicePrefetch(task, frozen, batch_sharding(mesh))
        batches = prefetch.training(task.training_records, config, int(state.position))
        cleanup.enter_context(closing(batches))
        skipped = SkippedUpdates(training.stop_after_skipped)
        watchdog = cleanup.enter_context(Watchdog(training.watchdog_minutes))
        profiler = cleanup.enter_context(Profiler(workdir, training, log.say))
        barrier("the first step", training.barrier_minutes)
        if first_step < training.steps:
            log.say("compiling the step; on a CPU this takes about half a minute")

        for step in range(first_step + 1, training.steps + 1):
            watchdog.step()
            profiler.step(step, state)
            with log.waiting_for_data():
                records, batch = next(batches)
            with guarded_step(step):
                state, metrics = train_step(state, frozen, batch, rate)
            if step == first_step + 1:
                log.start_clock(step, metrics)
            log.accumulate(metrics)
            skipped.watch(step, metrics["applied"].total, records)
            stopping = stop(step)
            last = step == training.steps or stopping
            if step % training.log_every == 0 or last:
                log.flush(step)
                checkpoints.check()
            elif step == first_step + _EARLY_STEPS:
                log.show(step)
            losses = None
            if not stopping and (step % training.eval_every == 0 or last):
                with log.off_step_time():
                    losses = _validation_losses(task, validate, state, frozen, prefetch, mesh)
                log.scalars(step, losses)
            if training.score_every and not stopping and (step % training.score_every == 0 or last):
                with log.off_step_time():
                    scores = task.scores(state.ema_params, frozen)
                log.scalars(step, scores)
                losses = (losses or {}) | scores
            if step % training.checkpoint_every == 0 or last:
                with log.off_step_time():
                    checkpoints.save(step, state, metadata, losses)
            elif local and step % training.local_every == 0:
                with log.off_step_time():
                    local.save(step, state, metadata)
            if is_image_step(training, step, stopping):
                if stopping:  # the checkpoint first: a preempted machine may soon be lost
                    checkpoints.check(wait=True)
                    log.say("drawing the first images; Ctrl-C leaves them out")
                with log.off_step_time():
                    log.images(step, *task.sample_images(state.ema_params, frozen))
            if stopping:
                log.say(f"stopped at step {step}; run the same command to go on")
                break
        skipped.drain()
        barrier("the end of the run", training.barrier_minutes)
    return state


def _newest(
    checkpoints: Checkpoints, local: LocalCheckpoints | None
) -> tuple[int, Checkpoints | LocalCheckpoints]:
    """Return the newest checkpoint's step, 0 for none, and store; local disks are preferred."""
    step = max(checkpoints.steps(), default=0)
    if local and max(local.steps(), default=0) >= max(step, 1):
        return max(local.steps()), local
    return step, checkpoints


def _valid_sum(task: Task, params: Any, frozen: Any, batch: Any) -> jax.Array:
    return jnp.sum(task.validation_losses(params, frozen, batch), where=batch["valid"])


def _validation_losses(
    task: Task, validate: Any, state: TrainState, frozen: Any, prefetch: DevicePrefetch, mesh: Mesh
) -> dict[str, float]:
    """Return the mean validation loss of the raw and the EMA weights over all held-out records."""
    records = len(task.validation_records)
    shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    batch_size = -(-min(records, _VALIDATION_BATCH) // shards) * shards
    sums = {"validation_loss": 0.0, "validation_loss_ema": 0.0}
    for batch in evaluation_batches(task.validation_records, batch_size):
        (batch,) = prefetch.encoded([batch])
        sums["validation_loss"] += validate(state.params, frozen, batch)
        sums["validation_loss_ema"] += validate(state.ema_params, frozen, batch)
    return {name: float(value) / records for name, value in sums.items()}


def _describe(state: TrainState, config: Config, workdir: Path) -> None:
    """Write the configuration and a table of all parameters to the workdir."""
    if jax.process_index() == 0:
        with atomic_file(workdir / "config.json") as file:
            file.write(config.to_json().encode())
        with atomic_file(workdir / "parameters.txt") as file:
            table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
            file.write(table.encode())
