"""Where each parameter of the JAX model is in `torch_lidit.py`: names, transposes, permutations."""

import flax.traverse_util
import numpy as np
import torch
from torch import Tensor

from lidit_jax.config import ModelConfig

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
    "feature_norm": "norm_in",
    "projection": "proj_in",
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
}


def state_from_flax(params: dict, config: ModelConfig) -> dict[str, Tensor]:
    """The `state_dict` of `TorchLIDiT` that equals unboxed JAX parameters.

    It only renames and permutes, so it maps gradients as well.

    Raises:
      KeyError: when a parameter has no place, which means that the two models differ.
    """
    state = {}
    for path, leaf in flax.traverse_util.flatten_dict(params, sep="/").items():
        module, kind = path.rsplit("/", 1)
        array = np.asarray(leaf, np.float32)
        if module.startswith("blocks/"):  # the layer scan's parameters: one array for all blocks
            name = _TRANSFORMER_BLOCK[module.removeprefix("blocks/")]
            named = {f"transformer_blocks.{i}.{name}": layer for i, layer in enumerate(array)}
        else:
            named = {_name(module): array}
        for name, value in named.items():
            state[f"{name}.{'bias' if kind == 'bias' else 'weight'}"] = torch.tensor(
                np.ascontiguousarray(_permuted(module, kind, value, config))
            )
    return state


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


def _permuted(module: str, kind: str, array: np.ndarray, config: ModelConfig) -> np.ndarray:
    """One parameter in PyTorch's layout."""
    if module.endswith("modulation/linear"):
        # adaLN vectors come as (scale, shift, gate) there, as (shift, scale, gate) here.
        vectors = array.shape[-1] // config.width
        group = 2 if vectors == 2 else 3
        grouped = array.reshape(*array.shape[:-1], vectors // group, group, config.width)
        array = grouped[..., [1, 0, 2][:group], :].reshape(array.shape)
    if module == "output/linear":
        # Values of a patch: (row, column, channel) there, pixel_shuffle's channel first here.
        values = array.reshape(*array.shape[:-1], config.patch**2, -1)
        array = values.swapaxes(-1, -2).reshape(array.shape)
    if kind != "kernel":
        return array
    if module == "patch_embedder":
        array = array.reshape(config.patch, config.patch, -1, config.width)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
