"""Compiled sampling loop that executes the coefficient table of `solvers.py`.

| name              | order | evaluations | fresh noise | a step                                |
|-------------------|-------|-------------|-------------|---------------------------------------|
| `ddpm`            | 1     | n           | yes         | ancestral, posterior variance         |
| `ddim`            | 1     | n           | with eta    | DDIM                                  |
| `euler`           | 1     | n           | no          | Euler                                 |
| `euler_ancestral` | 1     | n           | yes         | Euler, then fresh noise               |
| `heun`            | 2     | 2n-1 (*)    | no          | Heun: Euler step, then corrected      |
| `dpm++2m`         | 2     | n           | no          | DPM-Solver++, two-step                |
| `dpm++2m_sde`     | 2     | n           | yes         | SDE-DPM-Solver++, two-step            |
| `unipc`           | 3     | n           | no          | DPM-Solver++ with UniPC's corrector   |

(*) Fewer from pure noise under DDPM, where the first steps are Euler steps
(`lidit_jax.diffusion.solvers`).

The number of steps and the table are part of the compiled program (`lidit_jax.diffusion.solvers`
computes it); noise, seeds, conditions and guidance scales are data.

With a `cache_interval` of k > 1 only every k-th evaluation is computed in full; the others reuse
its slowly changing activations (`lidit_jax.diffusion.step_cache`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from lidit_jax.diffusion import solvers
from lidit_jax.diffusion.base import Process
from lidit_jax.diffusion.guidance import Guidance, ModelFn, Pair, PairFn, State, StepContext
from lidit_jax.diffusion.noise import StepNoise
from lidit_jax.diffusion.parameterization import to_x0
from lidit_jax.diffusion.solvers import SolverTable
from lidit_jax.diffusion.spacing import Grid, grid
from lidit_jax.diffusion.step_cache import Activations, CachedModel
from lidit_jax.errors import LiditError, quoted


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Sampler, number of steps and spacing; hashable, because it is a static argument."""

    name: str
    steps: int
    spacing: str = "trailing"
    """See `lidit_jax.diffusion.spacing`."""
    shift: float = 0.0
    """Time shift of rectified flow; 0 for the process's own."""
    eta: float = 0.0
    """"ddim": share of fresh noise, 0 (none) to 1 (equal to "ddpm")."""
    strength: float = 1.0
    """Share of the steps to run, counted from the end, for image-to-image sampling."""
    cache_interval: int = 1
    """Every `cache_interval`-th evaluation is computed in full; 1 computes all of them."""


class KnownRegion(NamedTuple):
    """Parts of the images that are given and kept, for inpainting."""

    x0: Float[Array, "B ..."]
    mask: Bool[Array, "B ..."]
    """True where `x0` is given."""


class Samples(NamedTuple):
    """Result of `sample`."""

    x0: Float[Array, "B ..."]
    """The images (or latents), float32."""
    nonfinite_step: Int[Array, ""]
    """First step, counted from 0, with a NaN or infinite value; -1 for none."""
    trajectory: Float[Array, "n B ..."] | None = None
    """With `trace`, the sample after each evaluation of the network."""


class _Kind(NamedTuple):
    """Coefficient table and time grid of one sampler."""

    table: Callable[[Process, Grid, float], SolverTable]
    fractional: bool = False
    early_stop: bool = False
    processes: tuple[str, ...] = ("ddpm", "flow")


_KINDS = {
    "ddpm": _Kind(lambda _, g, eta: solvers.first_order(g, 1.0), processes=("ddpm",)),
    "ddim": _Kind(lambda _, g, eta: solvers.first_order(g, eta), processes=("ddpm",)),
    "euler": _Kind(lambda _, g, eta: solvers.first_order(g), fractional=True),
    "euler_ancestral": _Kind(lambda _, g, eta: solvers.first_order(g, 1.0), fractional=True),
    "heun": _Kind(lambda p, g, eta: solvers.heun(g, p.name == "flow"), fractional=True),
    "dpm++2m": _Kind(lambda _, g, eta: solvers.dpm_solver(g), early_stop=True),
    "dpm++2m_sde": _Kind(lambda _, g, eta: solvers.dpm_solver(g, True), early_stop=True),
    "unipc": _Kind(lambda _, g, eta: solvers.unipc(g), early_stop=True),
}


def compatible_samplers(process: Process) -> tuple[str, ...]:
    """Return the names of the samplers that support a process."""
    return tuple(name for name, kind in _KINDS.items() if process.name in kind.processes)


def solver_tables(process: Process, sampler: Sampler) -> tuple[Grid, SolverTable]:
    """Return the times and the coefficient table of a sampler.

    Raises:
      LiditError: for an unknown sampler or spacing, one that the process does not support, or a
        number out of range.
    """
    if sampler.name not in compatible_samplers(process):
        raise LiditError(
            f"sampler {sampler.name!r} does not fit process {process.name!r}: "
            f"choose one of {quoted(compatible_samplers(process))}"
        )
    if not 0 <= sampler.eta <= 1:
        raise LiditError(f"eta {sampler.eta}: must be from 0 (no fresh noise) to 1")
    if sampler.eta and sampler.name != "ddim":
        raise LiditError(f"eta {sampler.eta} is for sampler 'ddim' only: leave it out")
    if not 0 < sampler.strength <= 1:
        raise LiditError(f"strength {sampler.strength}: must be greater than 0 and at most 1")
    if sampler.cache_interval < 1:
        raise LiditError(f"cache_interval {sampler.cache_interval}: must be 1 (off) or more")
    kind = _KINDS[sampler.name]
    times = grid(
        process,
        sampler.spacing,
        sampler.steps,
        shift=sampler.shift,
        fractional=kind.fractional,
        early_stop=kind.early_stop,
    )
    # As diffusers' image-to-image pipelines count; at least one step is taken.
    skipped = sampler.steps - max(int(sampler.steps * sampler.strength), 1)
    times = Grid(*(values[skipped:] for values in times))
    return times, kind.table(process, times, sampler.eta)


class _Stage(NamedTuple):
    """Inputs of one loop iteration: one row of every table."""

    number: Array
    step: Array
    time: Array
    normalized_time: Array
    signal: Array
    sigma: Array
    to_x: Array
    to_anchor: Array
    noise: Array
    fresh: Array


class _Carry(NamedTuple):
    """Carry of the sampling loop."""

    x: Array
    anchor: Array
    previous: Array
    older: Array
    guidance: State
    cached: Activations
    nonfinite_step: Array


class SamplerLoop(NamedTuple):
    """Sampling loop over all evaluations, run as a whole or in parts."""

    advance: Callable[[_Carry, _Stage], tuple[_Carry, Array | None]]
    first: _Carry
    """Carry before the first evaluation."""
    stages: _Stage

    def run(self, carry: _Carry, start: Int[Array, ""], stop: Int[Array, ""]) -> _Carry:
        """Run the evaluations from `start` up to `stop`, which may be traced values."""

        def evaluate(i: Int[Array, ""], carry: _Carry) -> _Carry:
            return self.advance(carry, jax.tree.map(lambda column: column[i], self.stages))[0]

        return jax.lax.fori_loop(start, stop, evaluate, carry)


def sample(
    model_fn: ModelFn | PairFn | CachedModel,
    process: Process,
    start: Float[Array, "B ..."],
    sampler: Sampler,
    *,
    guidance: Guidance | None = None,
    step_noise: StepNoise | None = None,
    known: KnownRegion | None = None,
    trace: bool = False,
) -> Samples:
    """Sample images from noise.

    Call it inside `jax.jit`, with `process` and `sampler` static: the program is then compiled once
    for all seeds and guidance scales.

    Args:
      model_fn: from x_t [B, ...] and the model's time [B] to the prediction [B, ...], or, with
        guidance, to a pair of predictions (see `lidit_jax.diffusion.guidance`). With a
        `cache_interval` above 1, a `CachedModel`.
      process: the process that the model was trained under.
      start: the sample at the first time: standard normal noise, as of `initial_noise`, or an image
        noised to the first time of `plan`.
      sampler: the sampler and its settings.
      guidance: how the pair is combined; None for a model of one prediction.
      step_noise: draws fresh noise; needed by stochastic samplers.
      known: parts of the images that are given. They replace the network's x0-prediction there, so
        that the samples converge to them; `start` must contain them with noise added.
      trace: also return the sample after each evaluation.

    Raises:
      LiditError: see `plan`.
    """
    loop = sampler_loop(
        model_fn,
        process,
        start,
        sampler,
        guidance=guidance,
        step_noise=step_noise,
        known=known,
        trace=trace,
    )
    last, trajectory = jax.lax.scan(loop.advance, loop.first, loop.stages)
    return Samples(last.x, last.nonfinite_step, trajectory)


def sampler_loop(
    model_fn: ModelFn | PairFn | CachedModel,
    process: Process,
    start: Float[Array, "B ..."],
    sampler: Sampler,
    *,
    guidance: Guidance | None = None,
    step_noise: StepNoise | None = None,
    known: KnownRegion | None = None,
    trace: bool = False,
) -> SamplerLoop:
    """Return the loop of `sample`, with the same arguments, to run it in parts.

    Raises:
      LiditError: see `plan`.
    """
    times, table = solver_tables(process, sampler)
    dtype = jnp.promote_types(start.dtype, jnp.float32)
    stages = _stages(process, times, table, sampler.cache_interval, dtype)
    if table.noise.any() and step_noise is None:
        raise LiditError(f"sampler {sampler.name!r} draws fresh noise: give step_noise")
    if sampler.cache_interval > 1 and not isinstance(model_fn, CachedModel):
        raise LiditError(f"cache_interval {sampler.cache_interval} needs a model with a step cache")

    def advance(carry: _Carry, stage: _Stage) -> tuple[_Carry, Array | None]:
        place = stage.signal, stage.sigma, stage.normalized_time, stage.step
        time, cached = jnp.full(len(carry.x), stage.time), carry.cached
        if isinstance(model_fn, CachedModel):
            output, cached = model_fn.evaluate(carry.x, time, stage.fresh, cached)
        else:
            output = model_fn(carry.x, time)
        if guidance is None:
            if isinstance(output, Pair):
                raise LiditError(
                    "a pair of predictions needs guidance: give it, or a model_fn without a pair"
                )
            prediction, state = output.astype(dtype), ()
        else:
            if not isinstance(output, Pair):
                raise LiditError(
                    "guidance compares a pair of predictions: give a model_fn that returns a Pair"
                )
            pair = Pair(*(half.astype(dtype) for half in output))
            context = StepContext(process.prediction, carry.x, *place)
            prediction, state = guidance.combine(pair, context, carry.guidance)
        x0 = to_x0(process.prediction, prediction, carry.x, stage.signal, stage.sigma)
        if known is not None:
            x0 = jnp.where(known.mask, known.x0.astype(dtype), x0)
        parts = (carry.x, carry.anchor, x0, carry.previous, carry.older)
        x = _weighted_sum(table.to_x, stage.to_x, parts)
        if step_noise is not None and table.noise.any():
            x = x + stage.noise * step_noise(stage.number).astype(dtype)
        anchor = _weighted_sum(table.to_anchor, stage.to_anchor, parts)
        failed = (carry.nonfinite_step < 0) & ~jnp.all(jnp.isfinite(x))
        step = jnp.where(failed, stage.step, carry.nonfinite_step)
        return _Carry(x, anchor, x0, carry.previous, state, cached, step), x if trace else None

    x = start.astype(dtype)
    blank = jnp.zeros_like(x)
    state = guidance.start(x) if guidance is not None else ()
    cached = ()
    if isinstance(model_fn, CachedModel):
        cached = model_fn.empty_cache(x, jnp.full(len(x), stages.time[0]))
    first = _Carry(x, blank, blank, blank, state, cached, jnp.int32(-1))
    return SamplerLoop(advance, first, stages)


def _stages(
    process: Process, times: Grid, table: SolverTable, cache_interval: int, dtype: DTypeLike
) -> _Stage:
    """Return the rows of all tables as arrays for the loop."""
    at = times.times[table.at]
    columns = {
        "time": process.model_time(at),
        "normalized_time": process.normalized_time(at),
        "signal": times.signal[table.at],
        "sigma": times.sigma[table.at],
        "to_x": table.to_x,
        "to_anchor": table.to_anchor,
        "noise": table.noise,
    }
    number = jnp.arange(len(at), dtype=jnp.int32)
    return _Stage(
        number=number,
        fresh=number % cache_interval == 0,
        step=jnp.asarray(table.step, jnp.int32),
        **{name: jnp.asarray(values, dtype) for name, values in columns.items()},
    )


def _weighted_sum(
    table: Float[np.ndarray, "n 5"], row: Float[Array, "5"], parts: tuple[Array, ...]
) -> Array:
    """Return the weighted sum of the parts, skipping parts whose weights are all zero."""
    used = [i for i in range(solvers.COLUMNS) if table[:, i].any()]
    return sum((row[i] * parts[i] for i in used), start=jnp.zeros_like(parts[0]))
