"""Schedule of a run's image grids."""

from __future__ import annotations

from lidit_jax.config.schema import TrainingConfig

_FIRST = 100
"""Step of the first image grid, if `image_every` is larger."""


def is_image_step(training: TrainingConfig, step: int, stopping: bool) -> bool:
    """Return whether to draw the grid after a step: once early, every `image_every`, at the end.

    If `image_every` is 0, never: compiling the sampler takes a good part of a short run.

    A preempted run may have seconds left, so it draws only if it has not drawn before. The result
    depends on the step alone, because all processes must agree on it.

    Args:
      training: of the run.
      step: number of finished steps.
      stopping: whether it is the last for now, because the run is preempted.
    """
    if not training.image_every:
        return False
    first = min(training.image_every, _FIRST)
    if stopping:
        return step <= first
    return step % training.image_every == 0 or step in (first, training.steps)
