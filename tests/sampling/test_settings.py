"""Sampling settings that do not fit a recipe's process are refused before anything starts."""

from pathlib import Path

import numpy as np
import pytest

from lidit_jax.config import Config, load_recipe
from lidit_jax.config.schema import SamplingConfig
from lidit_jax.errors import LiditError
from lidit_jax.sampling.settings import check_defaults, override

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
    overrides = [
        "diffusion.process=ddpm",
        "diffusion.prediction=epsilon",
        "diffusion.loss=prediction",
    ]
    overrides += ["diffusion.shift=1", "sampling.sampler=ddim", "diffusion.timesteps=20"]
    check_defaults(recipe(*overrides, "sampling.steps=20"))
    message = refusal(*overrides, "sampling.steps=21")
    assert message.startswith("config.sampling: 21 sampling steps")


def test_an_autoencoder_has_no_sampling_settings_to_check():
    check_defaults(recipe("training.task=vae", "vae.patch=8", "sampling.sampler=ddim"))


# --- names and numbers of a call ---------------------------------------------------------------


def test_numbers_may_be_numpys():
    settings = override(SamplingConfig(), {"steps": np.int64(8), "guidance": np.float32(1.5)})
    assert (settings.steps, settings.guidance) == (8, 1.5)
    assert (type(settings.steps), type(settings.guidance)) == (int, float)
    assert override(SamplingConfig(), {"shift": 3}).shift == 3.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("guidance_scale", "give guidance=SCALE"),
        ("num_inference_steps", "give steps=NUMBER"),
        ("height", r"give size=\(HEIGHT, WIDTH\)"),
        ("width", r"give size=\(HEIGHT, WIDTH\)"),
        ("num_images_per_prompt", r"give one prompt per image, .*\[prompt\] \* 4"),
        ("negative_prompts", "give negative_prompt=TEXT"),
        ("weaker", "give guide=PIPELINE"),
        ("guidance_rescal", "did you mean 'guidance_rescale'"),
        ("variation_sed", "did you mean 'variation_seed'"),
        ("color", "there are sampler, steps, "),
    ],
)
def test_names_of_other_libraries_are_answered_with_ours(name, expected):
    with pytest.raises(LiditError, match=f"there is no sampling setting '{name}': {expected}"):
        override(SamplingConfig(), {name: 1})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"steps": "8"}, "steps='8': must be a whole number"),
        ({"steps": True}, "steps=True: must be a whole number"),
        ({"guidance": "high"}, "guidance='high': must be a number"),
        ({"sampler": 3}, "sampler=3: must be a string"),
    ],
)
def test_values_of_another_kind_are_named(change, expected):
    with pytest.raises(LiditError, match=expected):
        override(SamplingConfig(), change)
