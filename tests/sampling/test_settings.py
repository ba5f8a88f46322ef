"""Sampling settings that do not fit a recipe's process are refused before anything starts."""

from pathlib import Path

import pytest

from lidit_jax.config import Config, load_recipe
from lidit_jax.errors import LiditError
from lidit_jax.sampling.settings import check_defaults

TINY = str(Path(__file__).parents[1] / "tiny_recipe.py")


def recipe(*overrides: str) -> Config:
    return load_recipe(TINY, overrides)


def refusal(*overrides: str) -> str:
    """The one line that is said of the tiny recipe with these overrides."""
    config = recipe(*overrides)
    with pytest.raises(LiditError) as refused:
        check_defaults(config)
    message = str(refused.value)
    assert "\n" not in message
    return message


MISTAKES = {
    "sampling.sampler=ddim": "config.sampling: sampler 'ddim' does not fit process 'flow': "
    "choose one of 'euler', 'euler_ancestral', 'heun', 'dpm++2m'",
    "sampling.spacing=leading": "config.sampling: spacing 'leading' does not fit process 'flow'",
    "sampling.guidance_high=-1": "config.sampling: guidance_low=0.0 and guidance_high=-1.0",
    "diffusion.prediction=epsilon": "config.diffusion.prediction='epsilon' does not fit process",
    "diffusion.shift=0": "config.diffusion.shift=0.0: must be greater than 0",
}


@pytest.mark.parametrize(("override", "expected"), MISTAKES.items(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_remedy(override, expected):
    assert refusal(override).startswith(expected)


def test_ddpm_cannot_take_more_steps_than_it_has():
    overrides = ["diffusion.process=ddpm", "diffusion.prediction=epsilon", "diffusion.loss=''"]
    overrides += ["diffusion.shift=1", "sampling.sampler=ddim", "diffusion.timesteps=20"]
    check_defaults(recipe(*overrides, "sampling.steps=20"))
    message = refusal(*overrides, "sampling.steps=21")
    assert message.startswith("config.sampling: 21 sampling steps")


def test_an_autoencoder_has_no_sampling_settings_to_check():
    check_defaults(recipe("training.task=vae", "vae.patch=8", "sampling.sampler=ddim"))
