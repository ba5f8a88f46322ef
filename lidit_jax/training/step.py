"""Compiled training step: gradient, optimizer update, EMA and metrics."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from clu.metrics import Average
from flax.linen.spmd import with_logical_constraint

from lidit_jax.checkpoints.state import TrainState
from lidit_jax.config.schema import Config
from lidit_jax.training.optimizers import Rate, learning_rate, make_optimizer
from lidit_jax.weights.parameter_paths import merged, split

Batch = dict[str, Any]
Metrics = dict[str, Any]
"""Metrics to log by name: averages, or scalars as averages of one value."""
LossFunction = Callable[[Any, Any, Batch, jax.Array], tuple[jax.Array, Metrics]]
EncodeFunction = Callable[[Any, Batch], Batch]


def make_train_step(
    loss: LossFunction,
    config: Config,
    encode: EncodeFunction = lambda frozen, batch: batch,
) -> Callable[[TrainState, Any, Batch, Rate], tuple[TrainState, dict[str, Average]]]:
    """Return the pure step `(state, frozen, batch, rate) -> (state, metrics)`, to be compiled.

    An update whose loss or gradient is not finite is not applied: the program then keeps weights,
    EMA weights and optimizer state. `metrics["applied"]` is then 0, and all other metrics have no
    weight. Parameters of `config.optimizer.freeze` are constants of the loss: their gradients are
    not computed, and they and their EMA stay as they are.

    Args:
      loss: `(params, frozen, batch, key) -> (scalar, metrics)`, the mean over the batch.
      config: the run's configuration; its learning rate is the `rate` of each call.
      encode: `(frozen, batch) -> batch`, prepares the batch with the frozen models, once for all
        micro-batches and outside of the gradient.
    """
    training = config.training

    def train_step(
        state: TrainState, frozen: Any, batch: Batch, rate: Rate
    ) -> tuple[TrainState, dict[str, Average]]:
        batch = encode(frozen, batch)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        trained, held = split(state.params, config.optimizer.freeze)
        averages, held_averages = split(state.ema_params, config.optimizer.freeze)

        def loss_of_trained(params: Any, *inputs: Any) -> tuple[jax.Array, Metrics]:
            return loss(merged(params, held), *inputs)

        (value, metrics), grads = accumulated_gradient(loss_of_trained, training.accumulation)(
            trained, frozen, batch, key
        )
        norm = optax.global_norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)

        optimizer = make_optimizer(config, rate)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = optax.apply_updates(trained, updates)
        # The EMA starts with a short window, so that early weights vanish from it.
        count = state.step.astype(jnp.float32)
        decay = jnp.minimum(training.ema_decay, (1.0 + count) / (10.0 + count))
        averages = optax.incremental_update(params, averages, 1.0 - decay)
        updated = state.replace(
            params=merged(params, held),
            ema_params=merged(averages, held_averages),
            opt_state=opt_state,
        )
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
        new_state = kept.replace(step=state.step + 1, position=state.position + 1)

        metrics = metrics | {
            "loss": value,
            "gradient_norm": norm,
            "update_norm": optax.global_norm(updates),
            **_norms_by_module("gradient_norm", grads),
            **_norms_by_module("update_norm", updates),
            "learning_rate": jnp.asarray(
                learning_rate(config.optimizer.schedule, rate)(state.step)
            ),
        }
        metrics = {name: _weighted(average, finite) for name, average in _averages(metrics).items()}
        return new_state, metrics | {"applied": _average(finite.astype(jnp.float32))}

    return train_step


def accumulated_gradient(loss: LossFunction, micro_batches: int) -> Callable[..., Any]:
    """Return `jax.value_and_grad` of the loss with gradient accumulation over micro-batches.

    Gradients are summed in float32. Every random draw is keyed by the record, so the result is that
    of the whole batch, up to rounding.
    """
    gradient = jax.value_and_grad(loss, has_aux=True)
    if micro_batches == 1:
        return gradient

    def accumulate(params: Any, frozen: Any, batch: Batch, key: jax.Array) -> Any:
        def compute(part: Batch) -> Any:
            (value, metrics), grads = gradient(params, frozen, part, key)
            return (value, _averages(metrics)), grads

        def add(total: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, compute(part)), None

        parts = jax.tree.map(lambda leaf: _split(leaf, micro_batches), batch)
        shapes = jax.eval_shape(compute, jax.tree.map(lambda leaf: leaf[0], parts))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        ((value, metrics), grads), _ = jax.lax.scan(add, zeros, parts)
        mean = 1.0 / micro_batches
        return (value * mean, metrics), jax.tree.map(lambda g: g * mean, grads)

    return accumulate


def _split(leaf: jax.Array, parts: int) -> jax.Array:
    """Split rows with a stride, so that each device keeps its rows."""
    taken = leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]).swapaxes(0, 1)
    return with_logical_constraint(taken, (None, "batch", *[None] * (leaf.ndim - 1)))


def _norms_by_module(name: str, tree: Any) -> dict[str, jax.Array]:
    """Return the global norm per module of the model."""
    return {f"{name}/{module}": optax.global_norm(part) for module, part in tree.items()}


def average(total: jax.Array, count: jax.Array) -> Average:
    """Return the average of values from their sum and count."""
    # clu's dataclass is made by `flax.struct`, which a checker does not find in plain `flax`.
    return Average(total=total, count=count)  # pyright: ignore[reportCallIssue]


def _average(value: jax.Array) -> Average:
    return average(value.astype(jnp.float32), jnp.ones((), jnp.float32))


def _averages(metrics: Metrics) -> dict[str, Average]:
    return {
        name: value if isinstance(value, Average) else _average(value)
        for name, value in metrics.items()
    }


def _weighted(average: Average, counts: jax.Array) -> Average:
    """Return the average with its weight kept or set to zero."""
    return jax.tree.map(lambda part: jnp.where(counts, part, 0).astype(jnp.float32), average)
