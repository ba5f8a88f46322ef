"""Weights of frozen encoders on the mesh: split where they divide, whole where they do not."""

from jax.sharding import PartitionSpec

from lidit_jax.config.schema import MeshConfig
from lidit_jax.encoders.clip import Clip
from lidit_jax.encoders.sharding import encoder_shardings
from lidit_jax.parallel.mesh import make_mesh

SHAPES = {
    "embedding": (300, 48),
    "layers/q": (4, 48, 96),
    "layers/o": (4, 96, 48),
    "layers/down": (4, 80, 48),
    "layers/v_bias": (4, 96),
    "layers/attention_norm": (4, 48),
    "final_norm": (48,),
}


def specs(shapes, *sizes) -> dict[str, PartitionSpec]:
    shardings = encoder_shardings(shapes, make_mesh(MeshConfig(*sizes)))
    return {path: sharding.spec for path, sharding in shardings.items()}


def test_weights_are_split_over_fsdp_and_tensor_and_norms_are_copied():
    assert specs(SHAPES, 1, 4, 2) == {
        "embedding": PartitionSpec(None, "fsdp"),
        "layers/q": PartitionSpec(None, "fsdp", "tensor"),
        "layers/o": PartitionSpec(None, "tensor", "fsdp"),
        "layers/down": PartitionSpec(None, "tensor", "fsdp"),
        "layers/v_bias": PartitionSpec(None, "tensor"),
        "layers/attention_norm": PartitionSpec(None, None),
        "final_norm": PartitionSpec(None),
    }


def test_clip_is_split_as_the_others():
    clip = Clip(300, 48, 4, 6, 80, 77, 1e-5, "gelu", causal=True)
    found = specs(clip.shapes(), 1, 4, 2)
    assert found["layers/up"] == PartitionSpec(None, "fsdp", "tensor")
    assert found["layers/o"] == PartitionSpec(None, "tensor", "fsdp")
    assert found["layers/up_bias"] == PartitionSpec(None, "tensor")
    assert found["position"] == PartitionSpec(None, None)


def test_an_axis_that_does_not_divide_stays_whole():
    """SmolLM2 has 9 heads of 64 channels: 576 divides by 8, its FFN of 1,537 would not."""
    shapes = {"layers/q": (2, 576, 576), "layers/up": (2, 576, 1537)}
    assert specs(shapes, 1, 1, 8) == {
        "layers/q": PartitionSpec(None, "fsdp", "tensor"),
        "layers/up": PartitionSpec(None, "fsdp", None),
    }


def test_copies_of_the_model_leave_the_weights_where_they_are():
    assert specs(SHAPES, 8, 1, 1) == {}
    assert encoder_shardings(SHAPES, None) == {}
