"""Products in 8 bits: near the exact ones, in both directions, on the same parameters."""

import re
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.errors import LiditError
from lidit_jax.models import LIDiT
from lidit_jax.models.layers import Dense
from lidit_jax.models.quantized import quantized_product
from tests.models.conftest import PREFIX_LENGTHS, small_config

pytest.importorskip("qwix", reason="qwix is not installed: pip install 'lidit-jax[quantized]'")

X = jax.random.normal(jax.random.key(0), (4, 32, 48))
ERRORS = {"int8": (0.01, 0.02), "fp8": (0.05, 0.1)}
"""Relative, of values and gradients. Half a step of int8 is 0.4% of the largest value of a row;
e4m3 keeps 3 bits behind the point, e5m2 two."""


def layer(quantization, dtype=jnp.float32):
    return Dense(40, ("embed", "mlp"), dtype, quantization=quantization)


def error(ours, theirs):
    ours, theirs = (np.asarray(a, np.float32) for a in (ours, theirs))
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("kind", ERRORS)
def test_values_and_gradients_are_near_the_exact_ones(kind, dtype):
    params = nn.unbox(layer("none").init(jax.random.key(1), X))

    def value(quantization):
        def loss(params, x):
            out = layer(quantization, dtype).apply(params, x)
            return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

        (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, X)
        return out, jax.tree.leaves(gradients)

    (exact, exact_gradients), (ours, gradients) = value("none"), value(kind)
    assert ours.dtype == exact.dtype == dtype
    forward, backward = ERRORS[kind]
    assert 0 < error(ours, exact) < forward
    for a, b in zip(gradients, exact_gradients, strict=True):
        assert error(a, b) < backward


@pytest.mark.parametrize(
    ("kind", "operands"),
    [("int8", {("i8", "i8")}), ("fp8", {("f8E4M3FN", "f8E4M3FN"), ("f8E5M2", "f8E4M3FN")})],
)
def test_all_products_of_a_block_with_weights_are_quantized_and_nothing_else(kind, operands):
    """Ten, forward and twice backward; refiners, modulation, input and output stay exact."""
    arguments = (
        jnp.zeros((2, 8, 8, 4)),
        jnp.zeros(2),
        (jnp.zeros((2, 9, 24)), jnp.zeros((2, 11, 40))),
        (jnp.ones((2, 9), bool), jnp.ones((2, 11), bool)),
    )
    exact, ours = (
        LIDiT(small_config(scan_unroll=1), quantization) for quantization in ("none", kind)
    )
    shapes, same = (
        jax.eval_shape(lambda m=m: m.init(jax.random.key(0), *arguments, PREFIX_LENGTHS))["params"]
        for m in (exact, ours)
    )
    assert jax.tree.structure(shapes) == jax.tree.structure(same)

    def loss(params):
        return jnp.sum(ours.apply({"params": params}, *arguments, PREFIX_LENGTHS) ** 2)

    text = jax.jit(jax.grad(loss)).lower(nn.unbox(shapes)).as_text()
    found = re.findall(r"dot_general .*: \(tensor<[\dx]*x(\w+)>, tensor<[\dx]*x(\w+)>\)", text)
    quantized = [pair for pair in found if pair != ("f32", "f32")]
    assert set(quantized) == operands
    assert len(quantized) == 30


def test_without_qwix_the_way_to_install_it_is_named(monkeypatch):
    quantized_product.cache_clear()
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(LiditError, match=r"pip install 'lidit-jax\[quantized\]'"):
        quantized_product("int8")
