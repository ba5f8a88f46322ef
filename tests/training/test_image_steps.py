"""When a run draws its image grid: early once, regularly, and at the end."""

import pytest

from lidit_jax.config.schema import TrainingConfig
from lidit_jax.training.image_steps import is_image_step


@pytest.mark.parametrize(
    ("every", "steps", "expected"),
    [
        (1000, 2500, [100, 1000, 2000, 2500]),
        (250, 600, [100, 250, 500, 600]),
        (50, 120, [50, 100, 120]),
        (1000, 60, [60]),
        (0, 60, []),
    ],
)
def test_the_first_grid_comes_by_step_100_and_the_last_at_the_end(every, steps, expected):
    training = TrainingConfig(image_every=every, steps=steps)
    drawn = [step for step in range(1, steps + 1) if is_image_step(training, step, stopping=False)]
    assert drawn == expected


@pytest.mark.parametrize(
    ("every", "step", "drawn"),
    [
        (1000, 1, True),
        (1000, 100, True),
        (1000, 101, False),
        (30, 30, True),
        (30, 60, False),
        (0, 1, False),
    ],
)
def test_a_stopped_run_draws_only_where_it_has_drawn_nothing_yet(every, step, drawn):
    assert is_image_step(TrainingConfig(image_every=every), step, stopping=True) == drawn
