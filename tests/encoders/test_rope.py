"""Angles of rotary position embedding: exact at any length, stretched as transformers does."""

import jax
import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lidit_jax.encoders.rope import Rope, rotation
from lidit_jax.errors import LiditError

WIDTH = 64
CONTEXT = 4096
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
LLAMA3 = YARN | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def transformers_config(rope: dict) -> transformers.PreTrainedConfig:
    return transformers.Qwen2Config(
        hidden_size=4 * WIDTH,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_theta": 1e6} | rope,
    )


@pytest.mark.parametrize("rope", [Rope(1e4), Rope(1e6, factor=4.0), Rope(1e6, amplitude=1.25)])
def test_angles_are_exact_after_thousands_of_tokens(rope):
    """One rounding to float32: half of 2**-23 of values below 2, for sine and cosine alike.

    Angles in float32 would be off by 4000 * 2**-24, a thousand times as much."""
    positions = np.array([[0, 1, 667, 3999], [1, 4000, 2, 3]], np.int32)
    turn = jax.jit(rotation, static_argnums=(0, 2, 3))(rope, positions, WIDTH, 4001)
    frequencies = rope.theta ** (-np.arange(0, WIDTH, 2, dtype=np.longdouble) / WIDTH)
    angles = positions[..., None, None] * frequencies / rope.factor
    for ours, wave in zip(turn, (np.cos, np.sin), strict=True):
        assert ours.dtype == np.float32
        error = np.abs(np.asarray(ours) - rope.amplitude * wave(angles)).max()
        assert error <= 2**-24 * rope.amplitude


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": 8.0},
        LLAMA3,
        YARN,
        YARN | {"rope_theta": 1e4, "factor": 40.0},
        YARN | {"beta_fast": 16.0, "beta_slow": 2.0},
        YARN | {"attention_factor": 0.75},
        YARN | {"mscale": 0.7, "mscale_all_dim": 1.3},
        YARN | {"truncate": False},
        YARN | {"original_max_position_embeddings": 8},
        {"rope_type": "yarn", "factor": 4.0},
    ],
)
def test_frequencies_and_amplitude_are_those_of_transformers(parameters):
    """Theirs are float32, a few roundings of 2**-24 from ours."""
    theirs = transformers_config(parameters)
    rope = Rope.from_huggingface(theirs.to_dict())
    if (kind := parameters["rope_type"]) == "default":
        expected = 1.0 / 1e6 ** (torch.arange(0, WIDTH, 2) / WIDTH)
        amplitude = 1.0
    else:
        expected, amplitude = ROPE_INIT_FUNCTIONS[kind](theirs, "cpu")
    np.testing.assert_allclose(rope.frequencies(WIDTH), expected.numpy(), rtol=8 * 2**-24)
    assert rope.amplitude == pytest.approx(amplitude)


def test_the_fields_of_transformers_4_mean_the_same():
    """`rope_scaling` with "type", beside `rope_theta`; it goes before `rope_parameters`."""
    older = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    config = {"rope_theta": 1e6, "max_position_embeddings": CONTEXT, "rope_scaling": older}
    newer = transformers_config(YARN).to_dict()
    assert Rope.from_huggingface(config) == Rope.from_huggingface(newer)
    assert Rope.from_huggingface(config | {"rope_parameters": {"rope_type": "default"}}).factor == 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rope_scaling": {"type": "longrope"}}, "RoPE scaling 'longrope' is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor of 0 is not supported"),
        ({"rope_parameters": {"full_attention": {}}}, "differ between kinds of attention"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
    ],
)
def test_what_is_not_supported_is_named(config, message):
    with pytest.raises(LiditError, match=message):
        Rope.from_huggingface(config)
