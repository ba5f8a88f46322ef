"""The imported network beside diffusers' PixArt transformer, with the same random weights."""

import dataclasses
import functools
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
import pytest

from lidit_jax.checkpoints.shapes import parameter_shapes
from lidit_jax.errors import LiditError
from lidit_jax.models.lidit import LIDiT
from lidit_jax.pytorch.pixart_config import read_transformer
from lidit_jax.pytorch.pixart_layout import from_pixart, pixart_names, pixart_shapes, to_pixart

from .tiny_pixart import PUBLISHED, inputs, predict, tensors, transformer

pytestmark = pytest.mark.numeric

# Float32 sums of a few dozen values near 1, over two blocks.
TOLERANCE = 1e-4


def imported(model):
    """Network and parameters of a transformer of diffusers."""
    stored = {name: value for name, value in model.config.items() if not name.startswith("_")}
    stored["_class_name"] = "PixArtTransformer2DModel"
    network = read_transformer(stored, Path("config.json"), 8, "float32")
    shapes = parameter_shapes(network.model, [network.feature_width], network.channels)
    theirs, params = tensors(model), {}
    for path, shape in shapes.items():
        pieces = list(from_pixart(path, theirs, network.model, network.channels))
        whole = np.stack(pieces) if path.startswith("blocks/") else pieces[0]
        assert whole.shape == shape, path
        params[path] = whole
    return network, params


def ours(config, params, given):
    nested = flax.traverse_util.unflatten_dict(params, sep="/")
    apply = jax.jit(functools.partial(LIDiT(config).apply, prefix_lengths=(0,)))
    return np.asarray(
        apply({"params": nested}, given.latents, given.times, (given.features,), (given.mask,))
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_output_equals_that_of_diffusers(name):
    model, given = transformer(**PUBLISHED[name]), inputs()
    network, params = imported(model)
    assert network.variance
    assert bool(network.model.size_embedding) == (name == "alpha-1024")
    expected = predict(model, given)
    assert 0.3 < expected.std() < 3
    np.testing.assert_allclose(ours(network.model, params, given), expected, rtol=0, atol=TOLERANCE)
