"""Two-way mapping between LI-DiT's parameters and the tensors of diffusers' PixArt transformer.

PixArt computes the modulation of all blocks with one linear map of the time, to which each block
adds a table of six vectors (adaLN-single, https://arxiv.org/abs/2310.00426, section 2.3). LI-DiT's
blocks have a linear map each: the shared kernel, and the shared bias plus the block's table. All
else is renamed or permuted. PixArt also predicts a variance, which no sampler here reads: half of
its output channels, which are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float

from lidit_jax.config.schema import ModelConfig
from lidit_jax.errors import LiditError

UNUSED = ("caption_projection.y_embedding",)
"""Tensors of published checkpoints that diffusers does not read either: PixArt's learned features
of an empty caption, instead of which its pipelines encode the empty prompt."""

_MODULATION = "blocks/modulation/linear"
_SHARED = "adaln_single.linear"
_EMBEDDERS = "adaln_single.emb"
_TOP = {
    "patch_embedder": "pos_embed.proj",
    "time_embedder/mlp/up": f"{_EMBEDDERS}.timestep_embedder.linear_1",
    "time_embedder/mlp/down": f"{_EMBEDDERS}.timestep_embedder.linear_2",
    "size_embedder/side/mlp/up": f"{_EMBEDDERS}.resolution_embedder.linear_1",
    "size_embedder/side/mlp/down": f"{_EMBEDDERS}.resolution_embedder.linear_2",
    "size_embedder/aspect/mlp/up": f"{_EMBEDDERS}.aspect_ratio_embedder.linear_1",
    "size_embedder/aspect/mlp/down": f"{_EMBEDDERS}.aspect_ratio_embedder.linear_2",
    "linguistic_refiner_0/projection/up": "caption_projection.linear_1",
    "linguistic_refiner_0/projection/down": "caption_projection.linear_2",
    "output/linear": "proj_out",
}
_BLOCK = {
    f"{ours}_attention/{layer}": f"{theirs}.{name}"
    for ours, theirs in (("self", "attn1"), ("cross", "attn2"))
    for layer, name in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("out", "to_out.0"))
} | {"mlp/up": "ff.net.0.proj", "mlp/down": "ff.net.2"}
_OUTPUT_TABLE, _TABLE = "output/table", "scale_shift_table"


def pixart_names(path: str, depth: int) -> list[str]:
    """Return the names of the tensors that a parameter consists of.

    Args:
      path: of the parameter, such as "blocks/mlp/up/kernel".
      depth: number of blocks L.

    Raises:
      KeyError: when the parameter has no counterpart, which means that the model is no PixArt.
    """
    if path == _OUTPUT_TABLE:
        return [_TABLE]
    module, kind = path.rsplit("/", 1)
    end = "bias" if kind == "bias" else "weight"
    if module == _MODULATION:
        shared = [f"{_SHARED}.{end}"]
        return shared + [_block_table(i) for i in range(depth)] if end == "bias" else shared
    if module.startswith("blocks/"):
        name = _BLOCK[module.removeprefix("blocks/")]
        return [f"transformer_blocks.{i}.{name}.{end}" for i in range(depth)]
    return [f"{_TOP[module]}.{end}"]


def pixart_shapes(
    path: str, shape: tuple[int, ...], config: ModelConfig, variance: bool
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that a parameter consists of, by their names.

    Args:
      path: of the parameter.
      shape: of the parameter.
      config: of the network.
      variance: whether the transformer predicts a variance, in as many more channels.
    """
    names, width = pixart_names(path, config.depth), config.width
    if path == _OUTPUT_TABLE:
        return {_TABLE: shape}
    module, kind = path.rsplit("/", 1)
    each = shape[1:] if module.startswith("blocks/") else shape
    if module == "output/linear" and variance:
        each = (*each[:-1], 2 * each[-1])
    if module == "patch_embedder" and kind == "kernel":
        return {names[0]: (width, each[0] // config.patch**2, config.patch, config.patch)}
    tables = (6, width)
    return {
        name: tables if name.endswith(_TABLE) else each if kind == "bias" else each[::-1]
        for name in names
    }


def from_pixart(
    path: str, tensors: Mapping[str, Float[np.ndarray, "..."]], config: ModelConfig, channels: int
) -> Iterator[Float[np.ndarray, "..."]]:
    """Yield a parameter in float32: whole, or block by block if it is one of the blocks'.

    Args:
      path: of the parameter.
      tensors: of the transformer, by name; those of `pixart_names` are read.
      config: of the network.
      channels: latent channels C; a predicted variance is dropped.
    """
    module, _, kind = path.rpartition("/")
    names = pixart_names(path, config.depth)
    if module == _MODULATION:
        shared = tensors[names[0]].astype(np.float32)
        for i in range(config.depth):
            added = tensors[names[1 + i]].astype(np.float32).reshape(-1) if kind == "bias" else 0
            yield _swap_scale_and_shift(shared.T + added)
        return
    for name in names:
        array = tensors[name].astype(np.float32)
        if path == _OUTPUT_TABLE:
            yield array[::-1]
        elif module == "output/linear":
            pixels = array.reshape(config.patch**2, -1, *array.shape[1:])[:, :channels]
            yield pixels.reshape(-1, *array.shape[1:]).T
        elif array.ndim == 4:  # the patches as a convolution
            yield array.transpose(2, 3, 1, 0).reshape(-1, config.width)
        else:
            yield array.T


def to_pixart(
    path: str, array: Float[np.ndarray, "..."], config: ModelConfig
) -> dict[str, Float[np.ndarray, "..."]]:
    """Return the tensors that a parameter consists of: the inverse of `from_pixart`.

    The biases of the modulations become the tables of the blocks, and the shared bias 0; no
    variance is predicted. Reading them back gives the same parameters, bit for bit.

    Args:
      path: of the parameter.
      array: the parameter, blocks on the first axis.
      config: of the network.

    Raises:
      LiditError: when the blocks have modulations of different kernels, as after training.
    """
    module, _, kind = path.rpartition("/")
    names = pixart_names(path, config.depth)
    if path == _OUTPUT_TABLE:
        return {names[0]: array[::-1]}
    if module == _MODULATION:
        theirs = _swap_scale_and_shift(array)
        if kind == "bias":
            tables = theirs.reshape(config.depth, 6, config.width)
            return dict(zip(names, [np.zeros_like(theirs[0]), *tables], strict=True))
        if (array != array[:1]).any():
            raise LiditError(
                f"{path} differs between the blocks, and PixArt has one for all of them: the model "
                "was trained further, and has no form in PixArt's layout"
            )
        return {names[0]: theirs[0].T}
    if module == "patch_embedder" and kind == "kernel":
        pixels = array.reshape(config.patch, config.patch, -1, config.width)
        return {names[0]: pixels.transpose(3, 2, 0, 1)}
    layers = list(array) if module.startswith("blocks/") else [array]
    return {name: layer.T for name, layer in zip(names, layers, strict=True)}


def _block_table(block: int) -> str:
    return f"transformer_blocks.{block}.{_TABLE}"


def _swap_scale_and_shift(array: np.ndarray) -> np.ndarray:
    """Swap scale and shift in the six vectors of the last axis: (scale, shift, gate) twice here,
    (shift, scale, gate) twice in PixArt. It is its own inverse."""
    vectors = array.reshape(*array.shape[:-1], 2, 3, -1)
    return vectors[..., [1, 0, 2], :].reshape(array.shape)
