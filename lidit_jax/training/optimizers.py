"""Optimizers and learning-rate schedules, built with optax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from optax.contrib import MuonDimensionNumbers, muon

from lidit_jax.config.schema import Config, OptimizerConfig
from lidit_jax.errors import LiditError


class Rate(NamedTuple):
    """Numbers of a learning-rate schedule, as inputs of the compiled step, so that changing them
    on resuming does not recompile it."""

    peak: Float[Array, ""] | np.float32
    warmup_steps: Int[Array, ""] | np.int32
    decay_steps: Int[Array, ""] | np.int32
    steps: Int[Array, ""] | np.int32
    """Total steps of the run."""


def rate_of(config: Config) -> Rate:
    """Return the numbers of a run's learning-rate schedule."""
    settings, steps = config.optimizer, np.int32(config.training.steps)
    lengths = np.int32(settings.warmup_steps), np.int32(settings.decay_steps)
    return Rate(np.float32(settings.learning_rate), *lengths, steps)


def make_optimizer(config: Config, rate: Rate | None = None) -> optax.GradientTransformation:
    """Return the configured optimizer with global-norm clipping and skipping of spikes.

    A matrix is the last two axes of a `kernel`, whatever layers are stacked before them.

    Args:
      config: of the run.
      rate: numbers of the schedule, which may be traced; the configured ones by default.
    """
    settings = config.optimizer
    schedule = learning_rate(settings.schedule, rate or rate_of(config))
    clip = optax.clip_by_global_norm(settings.clip_norm)
    optimizer = OPTIMIZERS[settings.name](settings, schedule)
    if settings.weight_decay:
        optimizer = decay_matrices_only(optimizer)
    optimizer = optax.chain(clip, optimizer)
    return skip_spikes(optimizer, settings.skip_spikes) if settings.skip_spikes else optimizer


def learning_rate(schedule: str, rate: Rate) -> optax.Schedule:
    """Return a schedule: linear warm-up, then constant, cosine to zero, or warm-up-stable-decay.

    The decay of the last is linear to zero over the last `decay_steps` (arXiv 2405.18392), so that
    the length of a run can be decided late. In a shorter run it takes the steps after the warm-up,
    which is not shortened, because the run may be extended later.
    """
    warmup_steps, after = rate.warmup_steps, jnp.maximum(rate.steps - rate.warmup_steps, 0)
    warmup = _line(0.0, rate.peak, warmup_steps)
    stable = optax.constant_schedule(rate.peak)
    if schedule == "cosine":
        return _joined([warmup, _cosine(rate.peak, after)], [warmup_steps])
    if schedule == "warmup_stable_decay":
        decay_steps = jnp.minimum(rate.decay_steps, after)
        decay = _line(rate.peak, 0.0, decay_steps)
        start = warmup_steps + after - decay_steps
        return _joined([warmup, stable, decay], [warmup_steps, start])
    return _joined([warmup, stable], [warmup_steps])


def _joined(
    schedules: Sequence[optax.Schedule], boundaries: Sequence[Int[Array, ""] | np.int32]
) -> optax.Schedule:
    # optax's types allow only Python numbers, but its comparisons accept traced ones too.
    return optax.join_schedules(schedules, boundaries)  # pyright: ignore[reportArgumentType]


def _line(first: Any, last: Any, steps: Any) -> optax.Schedule:
    """Return a linear schedule; unlike optax's, the number of steps may be traced."""
    share = _fraction_of_one(steps)
    most = jnp.maximum(steps, 1)
    return lambda count: (first - last) * (1 - jnp.clip(count, 0, most) * share) + last


def _cosine(peak: Any, steps: Any) -> optax.Schedule:
    """Return a cosine schedule from the peak to zero."""
    angle = jnp.float32(jnp.pi) * _fraction_of_one(steps)
    return lambda count: peak * (0.5 * (1 + jnp.cos(jnp.minimum(count, steps) * angle)))


def _fraction_of_one(steps: Any) -> Float[Array, ""]:
    """Return 1 / steps, as a factor: XLA also turns division by a constant into one."""
    return 1 / jnp.maximum(steps, 1).astype(jnp.float32)


def _fitted_decay(config: OptimizerConfig, steps: int) -> int:
    return min(config.decay_steps, max(steps - config.warmup_steps, 0))


def schedule_warnings(config: Config, resumed: bool) -> list[str]:
    """Return warnings about a schedule that does not fit in the run, one per line.

    Args:
      config: of the run.
      resumed: whether it resumes from a checkpoint, after which the warm-up cannot change.

    Raises:
      LiditError: when the warm-up of a new run is as long as the run.
    """
    settings, steps = config.optimizer, config.training.steps
    if settings.warmup_steps >= steps:
        reached = settings.learning_rate * steps / settings.warmup_steps
        problem = (
            f"config.optimizer.warmup_steps={settings.warmup_steps} fills the whole run of "
            f"config.training.steps={steps}: the learning rate would end at {reached:.3g} of "
            f"{settings.learning_rate:.3g}"
        )
        if resumed:
            return [f"warning: {problem}; raise config.training.steps to go beyond"]
        fitting = steps // 10
        raise LiditError(
            f"{problem}; lower the warm-up, as with --config.optimizer.warmup_steps={fitting}, or "
            "raise config.training.steps"
        )
    fitted = _fitted_decay(settings, steps)
    if settings.schedule == "warmup_stable_decay" and fitted < settings.decay_steps:
        return [
            f"warning: config.optimizer.decay_steps={settings.decay_steps} does not fit into "
            f"config.training.steps={steps} after warmup_steps={settings.warmup_steps}: the "
            f"learning rate falls to zero over the last {fitted} steps"
        ]
    return []


_UNDECAYED_MATRICES = ("modulation", "gate")
"""Modules whose output scales, shifts or gates; at 0, as initialized, their branch is off."""


def is_decayed(path: tuple[Any, ...]) -> bool:
    """Return whether weight decay applies to a parameter, by its path.

    It applies to kernels of linear maps and convolutions, not to biases, scales of norms, and the
    kernels of modulations and gates, which act as such scales. There are no embedding tables:
    tokens come from frozen encoders, and patches from a kernel.
    """
    names = [key.key for key in path if hasattr(key, "key")]
    return names[-1:] == ["kernel"] and not set(names) & set(_UNDECAYED_MATRICES)


def decay_matrices_only(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Wrap `inner` so that weight decay sees zeros for parameters that do not decay.

    Only weight decay reads parameter values. Unlike optax's masks this does not change the state,
    so that older runs can resume.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def shown(path: Any, leaf: Array) -> Array:
            return leaf if is_decayed(path) else jnp.zeros_like(leaf)

        return inner.update(updates, state, jax.tree_util.tree_map_with_path(shown, params))

    return optax.GradientTransformation(inner.init, update)


class SpikeState(NamedTuple):
    """State of `skip_spikes` around the state of the inner optimizer."""

    norm: Float[Array, ""]
    """Running mean of the gradient norms of applied updates."""
    seen: Float[Array, ""]
    """Number of applied updates."""
    inner: Any


_SPIKE_DECAY, _SPIKE_WARMUP = 0.98, 50


def skip_spikes(inner: optax.GradientTransformation, factor: float) -> optax.GradientTransformation:
    """Skip updates whose gradient norm is `factor` times the running mean, or more.

    The first 50 updates are never skipped. A skipped update keeps the weights and `inner` as is.
    """

    def init(params: Any) -> SpikeState:
        return SpikeState(jnp.zeros(()), jnp.zeros(()), inner.init(params))

    def update(
        updates: Any, state: optax.OptState, params: Any = None
    ) -> tuple[Any, optax.OptState]:
        assert isinstance(state, SpikeState)  # `init` makes no other
        norm = optax.global_norm(updates)
        passes = (state.seen < _SPIKE_WARMUP) | (norm < factor * state.norm)
        updates, after = inner.update(updates, state.inner, params)
        weight = jnp.maximum(1 - _SPIKE_DECAY, 1 / (state.seen + 1))
        passed = SpikeState(state.norm + weight * (norm - state.norm), state.seen + 1, after)
        updates = jax.tree.map(lambda u: jnp.where(passes, u, 0), updates)
        return updates, jax.tree.map(lambda new, old: jnp.where(passes, new, old), passed, state)

    return optax.GradientTransformation(init, update)


def _adamw(settings: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.adamw(
        rate,
        b1=settings.beta1,
        b2=settings.beta2,
        weight_decay=settings.weight_decay,
        mu_dtype=settings.momentum_dtype,
    )


def _adafactor(settings: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Return Adafactor: second moments factored into a row and a column (arXiv 1804.04235)."""
    return optax.adafactor(
        rate,
        momentum=settings.beta1 or None,
        dtype_momentum=jnp.dtype(settings.momentum_dtype),
        multiply_by_parameter_scale=False,
        weight_decay_rate=settings.weight_decay or None,
    )


def _muon(settings: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Return Muon for matrices, scaled to the size of AdamW's updates (arXiv 2502.16982), and
    AdamW for all other parameters."""

    def dimensions(params: Any) -> Any:
        def of(path: Any, leaf: Any) -> MuonDimensionNumbers | None:
            # The last name: Flax's boxes around new parameters add a nameless step to the path.
            names = [key.key for key in path if hasattr(key, "key")]
            matrix = names[-1:] == ["kernel"] and leaf.ndim < 4
            return MuonDimensionNumbers(-2, -1) if matrix else None

        return jax.tree_util.tree_map_with_path(of, params)

    optimizer = muon(
        rate,
        beta=settings.beta1,
        weight_decay=settings.weight_decay,
        mu_dtype=settings.momentum_dtype,
        adam_b1=settings.beta1,
        adam_b2=settings.beta2,
        adam_weight_decay=settings.weight_decay,
        muon_weight_dimension_numbers=dimensions,
        consistent_rms=0.2,
    )
    return optax.GradientTransformation(optimizer.init, _looped(optimizer.update))


_ITERATIONS = 5
"""Newton-Schulz iterations in Muon; optax's default."""


def _looped(update: Any) -> Any:
    """Run Muon's iterations as a loop instead of unrolled.

    Optax unrolls iterations with the same coefficients: 15 products per matrix, which were 40% of
    the programs that a GPU compiled for the demo's step. It loops if each iteration has its own row
    of coefficients; the stored state keeps one row.
    """

    def looped(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        row = optax.tree.get(state, "ns_coeffs")
        rows = jnp.broadcast_to(row, (_ITERATIONS, *row.shape))
        updates, after = update(gradients, optax.tree.set(state, ns_coeffs=rows), params)
        return updates, optax.tree.set(after, ns_coeffs=row)

    return looped


OPTIMIZERS = {"adamw": _adamw, "adafactor": _adafactor, "muon": _muon}
"""Optimizer constructors by the value of `config.optimizer.name`."""
