"""Training loop with checkpoints, validation and logging; it resumes in the same workdir."""

from __future__ import annotations

import functools
import time
from contextlib import ExitStack, closing
from pathlib import Path

import flax.linen as nn
import jax
from clu import parameter_overview

from lidit_jax.checkpoints.local import LocalCheckpoints
from lidit_jax.checkpoints.orbax import Checkpoints
from lidit_jax.checkpoints.state import TrainState, create_state
from lidit_jax.config.schema import Config
from lidit_jax.io.output import atomic_file
from lidit_jax.parallel.distributed import barrier, print_on_main
from lidit_jax.parallel.mesh import (
    batch_sharding,
    check_divisions,
    check_shapes_divide,
    make_mesh,
    replicated,
)
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, sharded_shapes
from lidit_jax.training.compile_ahead import CompileAhead
from lidit_jax.training.compiled_steps import CompiledSteps
from lidit_jax.training.data_changes import describe_data_changes, save_data_digests
from lidit_jax.training.device_prefetch import DevicePrefetch
from lidit_jax.training.freezing import check_frozen, trained_summary
from lidit_jax.training.guards import SkippedUpdates, Watchdog, guarded_step
from lidit_jax.training.host_consistency import check_data_consistency, check_program_consistency
from lidit_jax.training.image_steps import is_image_step
from lidit_jax.training.initialization import (
    change_notes,
    inherited_statistics,
    initialization_summary,
    initialize_from_run,
)
from lidit_jax.training.monitoring.profiling import Profiler
from lidit_jax.training.monitoring.run_log import RunLog
from lidit_jax.training.optimizers import make_optimizer, rate_of
from lidit_jax.training.preemption import watch_preemption
from lidit_jax.training.resume import check_same_models, check_same_run, stored_provenance
from lidit_jax.training.tasks import make_task
from lidit_jax.weights.parameter_paths import by_path

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
    with CompileAhead() as ahead, ExitStack() as cleanup:
        return _train(config, workdir, ahead, cleanup)


def _train(config: Config, workdir: Path, ahead: CompileAhead, cleanup: ExitStack) -> TrainState:
    """Run `train`, registering everything it opens with `cleanup`.

    `ahead` compiles the programs. It ends last: no checkpoint must wait for a compilation.
    """
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
        print_on_main(describe_data_changes(task.data.contents, before, workdir))
    buckets = {*task.data.order.buckets(0, training.steps), *task.data.validation_buckets}
    check_shapes_divide(config, mesh, [task.data.shapes[bucket] for bucket in sorted(buckets)])
    optimizer = make_optimizer(config)

    # The state is created or restored sharded: no device ever holds all of it.
    create = functools.partial(create_state, task.init, optimizer, config)
    with nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        shapes = sharded_shapes(mesh, jax.eval_shape(create))
    check_frozen(config, by_path(shapes.params))
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
        position = int(state.position)
        check_data_consistency(task, position)
        _describe(state, config, workdir)
        save_data_digests(task.data.contents, workdir)
        sizes = (training.steps, training.batch_size, first_step, task.training_flops)
        log = cleanup.enter_context(RunLog(workdir, *sizes, begun, config))
        log.say(f"{'resuming' if first_step else 'starting'} at step {first_step} in {workdir}")
        print_on_main(trained_summary(config, by_path(shapes.params)))
        if not first_step and training.init_from:
            log.say(initialization_summary(training.init_from, fresh))
            print_on_main(change_notes(task.provenance.encoders, config, fresh))

        prefetch = DevicePrefetch(task, config, frozen, batch_sharding(mesh))
        compiled = CompiledSteps(task, config, mesh, prefetch, ahead, log.say)
        compiled.begin(shapes, frozen, rate, position, training.steps - first_step)
        batches = prefetch.training(position, workdir)
        cleanup.enter_context(closing(batches))
        skipped = SkippedUpdates(training.stop_after_skipped)
        watchdog = cleanup.enter_context(Watchdog(training.watchdog_minutes))
        profiler = cleanup.enter_context(Profiler(workdir, training, log.say))
        barrier("the first step", training.barrier_minutes)

        for step in range(first_step + 1, training.steps + 1):
            watchdog.step()
            profiler.step(step, state)
            with log.waiting_for_data():
                batch = next(batches)
            with log.off_step_time():
                train_step = compiled.step(batch.bucket)
            with guarded_step(step):
                state, metrics = train_step(state, frozen, batch.arrays, rate)
            if step == first_step + 1:
                log.start_clock(step, metrics)
            log.scalars(step, compiled.news())
            log.accumulate(metrics)
            skipped.watch(step, metrics["applied"].total, batch.records)
            stopping = stop(step)
            last = step == training.steps or stopping
            if step % training.log_every == 0 or last:
                log.scalars(step, task.data.counts)
                log.flush(step)
                checkpoints.check()
            elif step == first_step + _EARLY_STEPS:
                log.show(step)
            losses = None
            if not stopping and (step % training.eval_every == 0 or last):
                with log.off_step_time():
                    losses = compiled.validation_losses(state, frozen)
                log.scalars(step, losses | compiled.news())
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


def _describe(state: TrainState, config: Config, workdir: Path) -> None:
    """Write the configuration and a table of all parameters to the workdir."""
    if jax.process_index() == 0:
        with atomic_file(workdir / "config.json") as file:
            file.write(config.to_json().encode())
        with atomic_file(workdir / "parameters.txt") as file:
            table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
            file.write(table.encode())
