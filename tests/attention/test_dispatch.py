"""Which kernel runs where, and that each is the same attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from jax.interpreters import partial_eval
from jax.sharding import AbstractDevice, AbstractMesh

from lidit_jax.attention import attention, chosen_kernel, device_in_use, reference_attention
from lidit_jax.attention.dispatch import Device
from lidit_jax.attention.gpu import gpu_attention
from lidit_jax.attention.names import CUDNN_FORWARD
from lidit_jax.errors import LiditError
from lidit_jax.models.rematerialization import POLICIES

from ..numerics import assert_close, rounding
from .inputs import arrays, padding, value_and_gradients

TPU, H100 = Device("tpu", "TPU v5"), Device("gpu", "NVIDIA H100 80GB HBM3")
CPU, AMD = Device("cpu", "cpu"), Device("gpu", "AMD Instinct MI300X")


@pytest.mark.parametrize(
    ("device", "tokens", "keys", "dtype", "head_width", "kernel"),
    [
        (TPU, 4096, 4096, "bfloat16", 72, "splash"),
        (TPU, 1024, 200, "float32", 64, "splash"),
        (TPU, 200, 200, "bfloat16", 72, "reference"),
        (H100, 4096, 4096, "bfloat16", 72, "cudnn"),
        (H100, 4096, 4096, "float32", 72, "reference"),
        (H100, 4096, 4096, "bfloat16", 12, "reference"),
        (AMD, 4096, 4096, "bfloat16", 72, "reference"),
        (CPU, 4096, 4096, "bfloat16", 72, "reference"),
    ],
)
def test_auto_follows_the_device(device, tokens, keys, dtype, head_width, kernel):
    q = jax.ShapeDtypeStruct((2, tokens, 4, head_width), dtype)
    assert chosen_kernel("auto", device, q, keys) == kernel
    assert chosen_kernel("reference", device, q, keys) == "reference"


def test_the_mesh_decides_and_not_the_default_backend():
    assert device_in_use().platform == "cpu"
    device = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((8,), ("fsdp",), abstract_device=device)):
        assert device_in_use() == Device("tpu", "TPU v5 lite")


def test_cudnn_says_what_it_takes():
    q, k, v, _ = arrays(8, 8, 16)
    with pytest.raises(LiditError, match=r"'cudnn' needs 16-bit heads .* not float32 of 16"):
        attention(q, k, v, kernel="cudnn")


def test_cudnn_needs_an_nvidia_gpu():
    q, k, v, _ = arrays(8, 8, 16, "bfloat16")
    with pytest.raises(LiditError, match=r"'cudnn' runs on NVIDIA GPUs only, not on cpu \(cpu\)"):
        attention(q, k, v, kernel="cudnn")
    amd = AbstractDevice(device_kind=AMD.kind, num_cores=None, platform=AMD.platform)
    mesh = AbstractMesh((1,), ("fsdp",), abstract_device=amd)
    with (
        jax.sharding.use_abstract_mesh(mesh),
        pytest.raises(LiditError, match=r"not on AMD Instinct MI300X \(gpu\): use 'auto'"),
    ):
        attention(q, k, v, kernel="cudnn")


def test_an_unknown_kernel_is_no_plain_attention():
    q, k, v, _ = arrays(8, 8, 16)
    known = "auto, reference, splash, cudnn"
    with pytest.raises(LiditError, match=f"no attention kernel 'flash': choose from {known}"):
        attention(q, k, v, kernel="flash")


@pytest.mark.numeric
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [None, (35, 6), (35, 0)], ids=["full", "padded", "empty row"])
def test_the_call_to_cudnn_is_the_same_attention(lengths, causal):
    """Through XLA's implementation of the same call, with odd lengths; cuDNN needs a GPU."""
    inputs = arrays(37, 35, 16)
    mask = None if lengths is None else padding(lengths, 35)
    options = {"mask": mask, "causal": causal}
    called = functools.partial(gpu_attention, implementation="xla", **options)
    plain = functools.partial(reference_attention, **options)
    found = value_and_gradients(called, *inputs)
    for array, expected in zip(found, value_and_gradients(plain, *inputs), strict=True):
        assert_close(array, expected, rounding(terms=50, sums=12))
    if lengths == (35, 0):
        np.testing.assert_array_equal(found[0][1], 0.0)


@pytest.mark.numeric
def test_the_call_to_cudnn_knows_shared_keys_and_a_prefix():
    inputs = arrays(36, 50, 16, heads=4, key_heads=2)
    for mask in (None, padding((50, 13), 50)):
        options = {"mask": mask, "causal": True, "query_offset": 14, "scale": 0.5}
        called = functools.partial(gpu_attention, implementation="xla", **options)
        plain = functools.partial(reference_attention, **options)
        found = value_and_gradients(called, *inputs)
        for array, expected in zip(found, value_and_gradients(plain, *inputs), strict=True):
            assert_close(array, expected, rounding(terms=50, sums=12))


def test_what_no_kernel_knows_is_computed_plainly():
    """Windows, soft caps and biases of language models; and exact float32."""
    q, k, v, _ = arrays(8, 8, 16)
    near = jnp.ones((1, 8, 8), bool)
    for options in ({"allowed": near}, {"soft_cap": 5.0}, {"exact": True}):
        traced = str(
            jax.make_jaxpr(functools.partial(attention, kernel="splash", **options))(q, k, v)
        )
        assert "pallas_call" not in traced
    assert "pallas_call" in str(
        jax.make_jaxpr(functools.partial(attention, kernel="splash"))(q, k, v)
    )


def test_a_kept_attention_is_not_computed_again():
    """Under the policy "attention" the backward pass finds the kernel's result and its sums."""
    q, k, v, _ = arrays(128, 128, 64)

    def kernels_run(policy):
        function = functools.partial(attention, kernel="splash")
        kept = jax.checkpoint(lambda *qkv: jnp.sum(function(*qkv)), policy=POLICIES[policy])
        traced = jax.make_jaxpr(jax.value_and_grad(kept, argnums=(0, 1, 2)))(q, k, v).jaxpr
        used, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
        return str(used).count("pallas_call[")

    assert kernels_run("attention") == 2
    assert kernels_run("full") == 3


def test_a_kept_attention_of_cudnn_is_not_computed_again(monkeypatch):
    """The policies know the kernel by the name of its primitive, which is JAX's own; none runs."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91500)
    q, k, v, _ = arrays(128, 128, 64, "bfloat16")
    function = functools.partial(gpu_attention, mask=padding((128, 7), 128))

    def kernels_run(policy):
        kept = jax.checkpoint(
            lambda *qkv: jnp.sum(function(*qkv)).astype(jnp.float32), policy=POLICIES[policy]
        )
        traced = jax.make_jaxpr(jax.value_and_grad(kept, argnums=(0, 1, 2)))(q, k, v).jaxpr
        used, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
        return str(used).count(f"{CUDNN_FORWARD}[")

    assert {
        policy: kernels_run(policy) for policy in ("full", "attention", "branches", "dots")
    } == {
        "full": 2,
        "attention": 1,
        "branches": 1,
        "dots": 1,
    }
