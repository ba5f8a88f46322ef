"""A small LI-DiT with two streams, and inputs for it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.config.schema import ModelConfig, RefinerConfig
from lidit_jax.models import LIDiT

PREFIX_LENGTHS = (3, 4)
PIXART = {
    "position": "sincos",
    "sincos_extent": 16.0,
    "sincos_order": "column_first",
    "qk_norm": False,
    "cross_attention": "plain",
    "output_modulation": "table",
    "size_embedding": 8,
    "refiner": RefinerConfig(
        blocks=0, collaborative_blocks=0, feature_norm="none", pool="none", projection="mlp"
    ),
}
"""Options of PixArt's network; its width is a multiple of 12."""


def small_config(**changes):
    defaults = {"width": 32, "depth": 2, "heads": 4, "patch": 2, "dtype": "float32"}
    return ModelConfig(**(defaults | changes))


@functools.cache
def _compiled(model, prefix_lengths, mutable):
    return jax.jit(functools.partial(model.apply, prefix_lengths=prefix_lengths, mutable=mutable))


def apply(model, params, inputs, mutable=False):
    """The network, compiled once for each model."""
    *arrays, prefix_lengths = inputs
    return _compiled(model, prefix_lengths, mutable)({"params": params}, *arrays)


def initialize(model, inputs):
    """Fresh parameters, compiled: op by op it takes twenty times as long."""
    *arrays, prefix_lengths = inputs
    init = jax.jit(functools.partial(model.init, prefix_lengths=prefix_lengths))
    return nn.unbox(init(jax.random.key(0), *arrays)["params"])


def randomized(params, seed=0, scale=0.3):
    """Parameters away from their zero initialization, so that every path carries signal."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(scale * rng.normal(size=leaf.shape) / leaf.ndim**2), params
    )


@pytest.fixture(scope="session")
def inputs():
    """x_t [2, 8, 8, 4], t [2], features and masks of two streams, prefix_lengths."""
    rng = np.random.default_rng(0)
    lengths, widths = (9, 11), (24, 40)
    features = tuple(
        jnp.asarray(rng.normal(size=(2, s, d)), jnp.float32)
        for s, d in zip(lengths, widths, strict=True)
    )
    masks = (
        jnp.asarray(np.arange(9) < np.array([[9], [6]])),
        jnp.asarray(np.arange(11) < np.array([[7], [11]])),
    )
    x_t = jnp.asarray(rng.normal(size=(2, 8, 8, 4)), jnp.float32)
    return x_t, jnp.array([100.0, 900.0]), features, masks, PREFIX_LENGTHS


@pytest.fixture(scope="session")
def model():
    return LIDiT(small_config())


@pytest.fixture(scope="session")
def fresh(model, inputs):
    """Parameters as initialized."""
    return initialize(model, inputs)


@pytest.fixture(scope="session")
def params(fresh):
    """Parameters as after some training."""
    return randomized(fresh)
