"""Layers and parts of the backbone, against PyTorch and diffusers where they have them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.models.embeddings import (
    apply_rotary_emb,
    get_2d_sincos_pos_embed,
    get_timestep_embedding,
)
from diffusers.models.normalization import RMSNorm

from lidit_jax.models.dit import (
    OutputLayer,
    PositionResBlock,
    patchify,
    rotary_positions,
    sincos_positions,
    unpatchify,
)
from lidit_jax.models.layers import (
    Dense,
    Mlp,
    Modulation,
    layer_norm,
    masked_mean,
    modulate,
    rms_norm,
    rotate,
    sinusoids,
)
from tests.numerics import EPSILON, SAME, assert_close, in_float64, rounding

pytestmark = pytest.mark.numeric


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# ---- norms ----


@pytest.mark.parametrize("ratio", [1, 1000])
def test_layer_norm_keeps_its_digits_where_the_mean_is_large(ratio):
    """float32 holds x = ratio + deviation to half a unit in the last place of `ratio`, and so do
    the mean and the difference: three roundings of ratio * 2^-24 each. The variance from E[x^2] -
    E[x]^2 would be off by ratio^2 * 2^-24 instead: 6% at 1,000."""
    rows = np.random.default_rng(0).normal(size=(64, 192)) + ratio
    x = rows.astype(np.float32)
    norm = layer_norm(jnp.float32, affine=False, name="norm")
    wide = x.astype(np.float64)
    centerd = wide - wide.mean(-1, keepdims=True)
    expected = centerd / np.sqrt((centerd**2).mean(-1, keepdims=True) + 1e-6)
    # A sum of 192 numbers rounds some more: pairwise, log2(192) = 8 times. Results reach 4, and
    # their own roundings are relative.
    tolerance = (8 + 3) * ratio * 2.0**-24 + 8 * 4 * 2.0**-24
    np.testing.assert_allclose(norm.apply({}, x), expected, rtol=0, atol=tolerance)


# ---- Dense and MLP ----


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 4), (2, 3, 5, 4)])
def test_dense_acts_on_the_last_axis_of_any_rank(shape):
    x, kernel, bias = normal(*shape), normal(4, 6), normal(6)
    dense = Dense(6, ("embed", "mlp"), jnp.float32)
    out = dense.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    np.testing.assert_allclose(out, x @ kernel + bias, atol=1e-5)


def test_dense_computes_in_its_type_and_keeps_float32_parameters():
    dense = Dense(6, ("embed", "mlp"), jnp.bfloat16)
    boxed = jax.eval_shape(dense.init, jax.random.key(0), normal(2, 4))["params"]
    assert boxed["kernel"].names == ("embed", "mlp")
    assert boxed["bias"].names == ("mlp",)
    assert boxed["kernel"].value.dtype == jnp.float32
    params = {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}
    assert dense.apply({"params": params}, jnp.ones((2, 4))).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("ours", "theirs"), [(nn.gelu, torch.nn.GELU("tanh")), (nn.silu, torch.nn.SiLU())]
)
def test_mlp_equals_two_torch_layers(ours, theirs):
    x = normal(3, 4)
    params = {
        "up": {"kernel": normal(4, 8), "bias": normal(8)},
        "down": {"kernel": normal(8, 5), "bias": normal(5)},
    }
    out = Mlp(8, 5, ours, jnp.float32).apply({"params": params}, x)
    hidden = theirs(torch.tensor(x @ params["up"]["kernel"] + params["up"]["bias"])).numpy()
    expected = hidden @ params["down"]["kernel"] + params["down"]["bias"]
    np.testing.assert_allclose(out, expected, atol=1e-5)


# ---- Norms and modulation ----


@pytest.mark.parametrize("mean", [0.0, 30.0], ids=["centerd", "large mean"])
def test_layer_norm_equals_torchs(mean):
    """A large mean costs digits, because flax computes the variance as E[x^2] - E[x]^2."""
    x, scale, bias = mean + normal(4, 64), normal(64, seed=1), normal(64, seed=2)
    theirs = torch.nn.functional.layer_norm(
        *(torch.tensor(a) if isinstance(a, np.ndarray) else a for a in (x, (64,), scale, bias)),
        eps=1e-6,
    )
    affine = nn.LayerNorm.apply(
        layer_norm(jnp.float32, affine=True, name=None),
        {"params": {"scale": scale, "bias": bias}},
        x,
    )
    np.testing.assert_allclose(affine, theirs, atol=1e-5 if mean == 0 else 2e-3)
    plain = layer_norm(jnp.float32, affine=False, name=None).apply({}, x)
    np.testing.assert_allclose(plain * scale + bias, affine, atol=1e-5)


def test_rms_norm_equals_diffusers():
    x, scale = normal(4, 64), normal(64, seed=1)
    theirs = RMSNorm(64, eps=1e-6)
    theirs.load_state_dict({"weight": torch.tensor(scale)})
    with in_float64():
        exact = theirs.double()(torch.tensor(x).double())
    out = rms_norm(jnp.float32, name=None).apply({"params": {"scale": scale}}, x)
    assert_close(out, exact, rounding(terms=64))


def test_rms_norm_of_zeros_is_zero_with_finite_gradients():
    """Padding is set to zero before the norm."""
    norm = rms_norm(jnp.float32, name=None)
    variables = {"params": {"scale": np.ones(8, np.float32)}}
    gradient = jax.grad(lambda x: jnp.sum(norm.apply(variables, x)))(jnp.zeros((2, 8)))
    np.testing.assert_array_equal(norm.apply(variables, jnp.zeros((2, 8))), 0.0)
    assert np.isfinite(gradient).all()


def test_modulation_starts_at_zero_and_modulate_is_then_the_identity():
    modulation = Modulation(9, jnp.float32)
    condition = normal(2, 8)
    variables = nn.unbox(modulation.init(jax.random.key(0), condition))
    vectors = modulation.apply(variables, condition)
    assert [v.shape for v in vectors] == [(2, 1, 8)] * 9
    x = normal(2, 5, 8)
    np.testing.assert_array_equal(modulate(x, vectors[0], vectors[1]), x)
    np.testing.assert_array_equal(
        modulate(x, jnp.ones((2, 1, 8)), jnp.full((2, 1, 8), 3.0)), 2 * x + 3
    )


def test_masked_mean_counts_valid_tokens_and_is_zero_without_any():
    tokens = normal(3, 5, 4)
    mask = np.arange(5) < np.array([[5], [2], [0]])
    mean = masked_mean(tokens, mask)
    np.testing.assert_allclose(mean[0], tokens[0].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(mean[1], tokens[1, :2].mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(mean[2], 0.0)


# ---- Time ----


def test_sinusoids_equal_diffusers():
    """The same in float64. In float32 an angle is rounded three times: exponent, power, product.

    The exponent, up to 9.2, costs most: half of its last bit, 8 epsilon / 2, of the frequency.
    """
    t = np.array([0.0, 0.5, 37.0, 999.0], np.float32)
    ours = sinusoids(t, 256)
    with in_float64():
        options = {"flip_sin_to_cos": True, "downscale_freq_shift": 0}
        exact = get_timestep_embedding(torch.tensor(t).double(), 256, **options).numpy()
        assert_close(sinusoids(t.astype(np.float64), 256), exact, SAME)
    largest = np.abs(ours - exact).max(axis=1)
    # exp(-x) x is at most 1/e, so that the small frequencies' errors count little.
    assert np.all(largest <= (1 + 2 * t) * EPSILON), largest / EPSILON


# ---- Positions ----


def test_rotation_equals_diffusers():
    """Half-split layout, which diffusers calls `use_real_unbind_dim=-2`."""
    x = normal(2, 12, 3, 16)
    cos, sin = rotary_positions((3, 4), 16)
    expected = apply_rotary_emb(
        torch.tensor(x).transpose(1, 2),
        (torch.tensor(np.asarray(cos)), torch.tensor(np.asarray(sin))),
        use_real_unbind_dim=-2,
    ).transpose(1, 2)
    np.testing.assert_allclose(rotate(x, cos, sin), expected, atol=1e-6)


def test_rotary_products_depend_on_the_offset_in_rows_and_columns_only():
    rows, columns = 4, 5
    q, k = (np.broadcast_to(normal(16, seed=s), (1, rows * columns, 1, 16)) for s in (1, 2))
    positions = rotary_positions((rows, columns), 16)
    products = np.einsum("bnhk,bmhk->nm", rotate(q, *positions), rotate(k, *positions))
    products = products.reshape(rows, columns, rows, columns)
    np.testing.assert_allclose(products[0, 0, 1, 2], products[2, 1, 3, 3], atol=1e-5)
    for other in ((2, 1), (1, 1), (0, 2), (1, 3)):
        assert np.abs(products[0, 0, 1, 2] - products[0, 0, *other]) > 1e-3


def test_sincos_positions_equal_diffusers():
    """diffusers puts the column's half first, we the row's; it only knows square grids."""
    width, side = 32, 5
    column_first = get_2d_sincos_pos_embed(width, side, base_size=side, output_type="pt")
    expected = np.roll(column_first.numpy(), width // 2, axis=-1)
    np.testing.assert_allclose(sincos_positions((side, side), width), expected, atol=1e-6)


def test_sincos_positions_of_an_extent_equal_diffusers():
    """PixArt's: a grid of any shape spans base size / interpolation scale positions per side."""
    width, grid = 32, (5, 3)
    expected = get_2d_sincos_pos_embed(
        width, grid, base_size=64, interpolation_scale=2, output_type="pt"
    )
    ours = sincos_positions(grid, width, extent=32.0, order="column_first")
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5)


def test_sincos_positions_of_a_grid_are_those_of_a_larger_one():
    large = sincos_positions((6, 7), 16).reshape(6, 7, 16)
    small = sincos_positions((2, 3), 16).reshape(2, 3, 16)
    np.testing.assert_array_equal(large[:2, :3], small)


def test_position_block_is_convolution_with_zero_padding():
    width, grid = 6, (3, 4)
    params = {
        f"{name}_{i}": value
        for i in range(2)
        for name, value in (
            ("norm", {"scale": 1 + 0.1 * normal(width, seed=i)}),
            ("conv", {"kernel": normal(3, 3, width, width, seed=i), "bias": normal(width, seed=i)}),
        )
    }
    x = normal(2, 12, width)
    out = PositionResBlock(jnp.float32).apply({"params": params}, x, grid)

    h = torch.tensor(x).reshape(2, *grid, width)
    for i in range(2):
        scale, conv = torch.tensor(params[f"norm_{i}"]["scale"]), params[f"conv_{i}"]
        h = torch.nn.functional.silu(torch.nn.functional.rms_norm(h, (width,), scale, 1e-6))
        weight = torch.tensor(conv["kernel"].transpose(3, 2, 0, 1).copy())
        padded = torch.nn.functional.pad(h.movedim(-1, 1), (1, 1, 1, 1))
        h = torch.nn.functional.conv2d(padded, weight, torch.tensor(conv["bias"])).movedim(1, -1)
    np.testing.assert_allclose(out, x + h.reshape(x.shape).numpy(), atol=1e-4)


# ---- Patches ----


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_are_read_row_by_row_and_put_back(patch):
    x = normal(2, 8, 12, 3)
    tokens = patchify(x, patch)
    np.testing.assert_array_equal(tokens[1, 1], x[1, :patch, patch : 2 * patch].reshape(-1))
    np.testing.assert_array_equal(unpatchify(tokens, patch, (8 // patch, 12 // patch)), x)


def test_the_output_layer_starts_at_zero_and_is_float32():
    layer = OutputLayer(5, jnp.bfloat16)
    x, condition = jnp.ones((2, 3, 8), jnp.bfloat16), jnp.ones((2, 8), jnp.bfloat16)
    variables = nn.unbox(layer.init(jax.random.key(0), x, condition))
    out = layer.apply(variables, x, condition)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, 0.0)
