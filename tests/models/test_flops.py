"""The formula of the FLOPs beside XLA's own count, and beside the design's worked numbers."""

import dataclasses

import jax
import pytest

from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import RefinerConfig
from lidit_jax.models import LIDiT
from lidit_jax.models.flops import TextStream, forward_flops

from .conftest import PIXART, PREFIX_LENGTHS, initialize, small_config

STREAMS = [TextStream(24, 9, PREFIX_LENGTHS[0]), TextStream(40, 11, PREFIX_LENGTHS[1])]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"position": "rope", "mlp_ratio": 3},
        {"position": "rope", "refiner": RefinerConfig(1, gate=False, collaborative_blocks=0)},
        PIXART | {"width": 132},
    ],
    ids=["defaults", "no convolution", "small refiners", "PixArt"],
)
def test_the_formula_agrees_with_the_compiled_program(changes, inputs):
    """XLA also counts norms and softmax, and not the padding of convolutions: 6% at width 128."""
    config = small_config(**({"width": 128, "scan_unroll": 2} | changes))
    *arrays, prefix_lengths = inputs
    model = LIDiT(config)
    params = initialize(model, inputs)
    program = jax.jit(lambda p, *a: model.apply({"params": p}, *a, prefix_lengths)).lower(
        params, *arrays
    )
    counted = program.compile().cost_analysis()["flops"] / 2  # rows
    formula = forward_flops(config, tokens=16, channels=4, streams=STREAMS).total
    assert counted == pytest.approx(formula, rel=0.06)


def test_only_concatenated_layers_make_the_projection_wider():
    """Of 3 layers of 24 channels: 48 more inputs of the projection per token, and of the pool."""
    first, second = STREAMS
    several = [dataclasses.replace(first, layers=3), second]

    def total(mix, streams):
        config = small_config(refiner=RefinerConfig(layer_mix=mix))
        return forward_flops(config, tokens=16, channels=4, streams=streams).total

    assert total("average", several) == total("average", STREAMS)
    more = total("concatenate", several) - total("concatenate", STREAMS)
    assert more == 2 * 48 * 32 * (first.tokens + 1)


@pytest.mark.parametrize(
    ("recipe", "size", "expected"), [("lidit_1b", 256, 0.93e12), ("lidit_10b", 512, 36e12)]
)
def test_a_training_step_costs_what_the_design_says(recipe, size, expected):
    """The backbone alone, with 2 x 100 tokens of text."""
    model = load_recipe(recipe).model
    tokens = (size // 8 // model.patch) ** 2
    streams = [TextStream(4096, 130, 30)] * 2
    flops = forward_flops(model, tokens, 16, streams)
    backbone = dataclasses.replace(flops, refiners=0).training
    assert backbone == pytest.approx(expected, rel=0.05)
