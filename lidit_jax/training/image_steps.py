"""When a run draws its image grid."""

from __future__ import annotations

from lidit_jax.config.schema import TrainingConfig

_FIRST = 100
"""A run shows something by this step, however far `image_every` is."""


def is_image_step(training: TrainingConfig, step: int, stopping: bool) -> bool:
    """Whether the grid is drawn after a step: early once, every `image_every`, and at the end.

    Never, where `image_every` is 0: to compile the sampler takes a good part of a short run.

    A run that is stopped may have seconds left before its machine is taken away, so it draws only
    where it has not drawn before. This depends on the step alone: all processes must agree on it.

    Args:
      training: of the run.
      step: the one that is done.
      stopping: whether it is the last for now, because the run was told to stop.
    """
    if not training.image_every:
        return False
    first = min(training.image_every, _FIRST)
    if stopping:
        return step <= first
    return step % training.image_every == 0 or step in (first, training.steps)
