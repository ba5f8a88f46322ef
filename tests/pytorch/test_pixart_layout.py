"""The imported network beside diffusers' PixArt transformer, with the same random weights."""

import dataclasses
import functools
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
import pytest
import torch

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


@pytest.fixture(scope="module")
def alpha():
    """PixArt-alpha at 1024 px, which has all parts: its network, ours, and what it predicts."""
    model = transformer(**PUBLISHED["alpha-1024"])
    return model, *imported(model), predict(model, inputs())


@pytest.mark.parametrize("name", PUBLISHED)
def test_output_equals_that_of_diffusers(name):
    model, given = transformer(**PUBLISHED[name]), inputs()
    network, params = imported(model)
    assert network.variance
    assert bool(network.model.size_embedding) == (name == "alpha-1024")
    expected = predict(model, given)
    assert 0.3 < expected.std() < 3
    np.testing.assert_allclose(ours(network.model, params, given), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "change",
    [
        {"sincos_order": "row_first"},
        {"sincos_extent": 0.0},
        {"size_embedding": 0},
        {"size_embedding": 16},
        {"qk_norm": True},
    ],
    ids=str,
)
def test_no_option_may_be_forgotten(alpha, change):
    _, network, params, expected = alpha
    if "qk_norm" in change:
        heads = network.model.width // network.model.heads
        norms = {
            f"blocks/{kind}_attention/{name}_norm/scale": np.ones((2, heads), np.float32)
            for kind in ("self", "cross")
            for name in ("query", "key")
        }
        params = params | norms
    changed = ours(dataclasses.replace(network.model, **change), params, inputs())
    assert np.abs(changed - expected).max() > 100 * TOLERANCE


def test_the_mask_may_not_be_dropped(alpha):
    _, network, params, expected = alpha
    given = inputs()
    changed = ours(network.model, params, dataclasses.replace(given, mask=np.ones_like(given.mask)))
    far = np.abs(changed - expected).max(axis=(1, 2, 3))
    assert far[0] > 100 * TOLERANCE
    assert far[1] <= TOLERANCE, "its text has no padding"


def test_and_back_bit_for_bit(alpha):
    _, network, params, expected = alpha
    theirs = {}
    for path, array in params.items():
        theirs |= {name: np.array(a) for name, a in to_pixart(path, array, network.model).items()}
    for path, array in params.items():
        again = list(from_pixart(path, theirs, network.model, network.channels))
        np.testing.assert_array_equal(np.stack(again).reshape(array.shape), array)
    other = transformer(**PUBLISHED["alpha-1024"], out_channels=4)
    other.load_state_dict({name: torch.from_numpy(array) for name, array in theirs.items()})
    np.testing.assert_allclose(predict(other, inputs()), expected, rtol=0, atol=TOLERANCE)


def test_names_and_shapes_are_all_those_of_diffusers(alpha):
    model, network, params, _ = alpha
    shapes = {}
    for path, array in params.items():
        named = pixart_shapes(path, array.shape, network.model, network.variance)
        assert list(named) == pixart_names(path, network.model.depth)
        shapes |= named
    assert shapes == {name: array.shape for name, array in tensors(model).items()}


def test_blocks_with_kernels_of_their_own_have_no_form_in_pixart(alpha):
    _, network, params, _ = alpha
    path = "blocks/modulation/linear/kernel"
    trained = params[path].copy()
    trained[1, 0, 0] += 1
    with pytest.raises(LiditError, match="differs between the blocks"):
        to_pixart(path, trained, network.model)
