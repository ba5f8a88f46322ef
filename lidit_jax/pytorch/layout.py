"""Mapping between JAX and PyTorch parameters: names, transposes and permutations.

The JAX model keeps one array for all DiT blocks, stacked on the first axis; in PyTorch each block
has its own tensor. Everything is a renaming or a permutation, so it maps gradients as well, and
the round trip is bit-exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lidit_jax.config.schema import ModelConfig

_ATTENTION = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "out": "to_out",
    "query_norm": "norm_q",
    "key_norm": "norm_k",
}
_MLP = {"mlp/up": "ff.linear_1", "mlp/down": "ff.linear_2"}
_TIME_EMBEDDER = {"mlp/up": "mlp.linear_1", "mlp/down": "mlp.linear_2"}


def _under(ours: str, theirs: str, table: dict[str, str]) -> dict[str, str]:
    return {f"{ours}/{key}": f"{theirs}.{value}" for key, value in table.items()}


_TRANSFORMER_BLOCK = {
    "modulation/linear": "norm.linear",
    **_under("self_attention", "attn1", _ATTENTION),
    **_under("cross_attention", "attn2", _ATTENTION),
    **_MLP,
}
_COLLABORATIVE_BLOCK = {
    "modulation/linear": "norm.linear",
    **_under("cross_attention", "attn", _ATTENTION),
    **_MLP,
}
_REFINER_BLOCK = {
    "attention_norm": "norm1",
    "mlp_norm": "norm2",
    "gate/linear": "norm_out.linear",
    **_under("self_attention", "attn", _ATTENTION),
    **_MLP,
}
_REFINER = {
    "layer_mix": "layer_mix",
    "feature_norm": "norm_in",
    "projection": "proj_in",
    "projection/up": "proj_in.linear_1",
    "projection/down": "proj_in.linear_2",
    "pooled_embedder/up": "text_embedder.linear_1",
    "pooled_embedder/down": "text_embedder.linear_2",
    **_under("time_embedder", "timestep_embedder", _TIME_EMBEDDER),
}
_TOP = {
    "patch_embedder": "pos_embed",
    "position/norm_0": "pos_block.norms.0",
    "position/norm_1": "pos_block.norms.1",
    "position/conv_0": "pos_block.convs.0",
    "position/conv_1": "pos_block.convs.1",
    "output/modulation/linear": "norm_out.linear",
    "output/linear": "proj_out",
    **_under("time_embedder", "time_embedder", _TIME_EMBEDDER),
    **_under("size_embedder/side", "size_embedder.resolution_embedder", _TIME_EMBEDDER),
    **_under("size_embedder/aspect", "size_embedder.aspect_ratio_embedder", _TIME_EMBEDDER),
}
_BLOCKS = "blocks/"
_OUTPUT_TABLE = "output/table"


def torch_names(path: str, shape: Sequence[int]) -> list[str]:
    """Return the names of a JAX parameter's PyTorch tensors, one per DiT block if it is stacked.

    Args:
      path: of the parameter, such as "blocks/mlp/up/kernel".
      shape: its shape.

    Raises:
      KeyError: when the parameter has no counterpart, which means that the two models differ.
    """
    if path == _OUTPUT_TABLE:
        return ["norm_out.scale_shift_table"]
    module, kind = path.rsplit("/", 1)
    end = "bias" if kind == "bias" else "weight"
    if module.startswith(_BLOCKS):
        name = _TRANSFORMER_BLOCK[module.removeprefix(_BLOCKS)]
        return [f"transformer_blocks.{i}.{name}.{end}" for i in range(shape[0])]
    return [f"{_name(module)}.{end}"]


def torch_layers(path: str, array: np.ndarray) -> list[np.ndarray]:
    """Split a JAX parameter into views in the order of `torch_names`."""
    return list(array) if path.startswith(_BLOCKS) else [array]


def to_torch(path: str, array: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Convert one of the `torch_layers` of a parameter to PyTorch's layout."""
    if path == _OUTPUT_TABLE:
        return array[::-1]  # rows (scale, shift) here, (shift, scale) in PyTorch
    module, kind = path.rsplit("/", 1)
    if module.endswith("modulation/linear"):
        array = _swap_scale_and_shift(array, config.width)
    if module == "output/linear":
        # Values of a patch: (row, column, channel) there, pixel_shuffle's channel first here.
        array = _swap_groups(array, config.patch**2)
    if kind != "kernel":
        return array
    if module == "patch_embedder":
        array = array.reshape(config.patch, config.patch, -1, config.width)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def from_torch(path: str, array: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Convert a tensor to the JAX layout: the inverse of `to_torch`."""
    if path == _OUTPUT_TABLE:
        return array[::-1]
    module, kind = path.rsplit("/", 1)
    if kind == "kernel":
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        if module == "patch_embedder":
            array = array.reshape(-1, config.width)
    if module == "output/linear":
        array = _swap_groups(array, array.shape[-1] // config.patch**2)
    if module.endswith("modulation/linear"):
        array = _swap_scale_and_shift(array, config.width)
    return array


def _name(module: str) -> str:
    head, _, rest = module.partition("/")
    if head == "collaborative_refiner":
        block, _, rest = rest.partition("/")
        _, i, _, k = block.split("_")  # block_{i}_stream_{k}
        return f"collaborative_refiner.{i}.{k}.{_COLLABORATIVE_BLOCK[rest]}"
    if head.startswith("linguistic_refiner_"):
        prefix = f"token_refiners.{head.removeprefix('linguistic_refiner_')}"
        block, _, inner = rest.partition("/")
        if not block.startswith("block_"):
            return f"{prefix}.{_REFINER[rest]}"
        return f"{prefix}.refiner_blocks.{block.removeprefix('block_')}.{_REFINER_BLOCK[inner]}"
    return _TOP[module]


def _swap_scale_and_shift(array: np.ndarray, width: int) -> np.ndarray:
    """Swap adaLN vectors (scale, shift, gate) in JAX and (shift, scale, gate) in PyTorch."""
    vectors = array.shape[-1] // width
    group = 2 if vectors == 2 else 3
    grouped = array.reshape(*array.shape[:-1], vectors // group, group, width)
    return grouped[..., [1, 0, 2][:group], :].reshape(array.shape)


def _swap_groups(array: np.ndarray, groups: int) -> np.ndarray:
    """Transpose the last axis, viewed as [groups, rest], to [rest, groups]."""
    values = array.reshape(*array.shape[:-1], groups, -1)
    return values.swapaxes(-1, -2).reshape(array.shape)
