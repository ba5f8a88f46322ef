"""Storage of one caption's text features: bfloat16, or int8 with one scale per token and layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import Array, Float, Float32, Int8

Storage = Literal["bfloat16", "int8"]
"""`config.data.text_storage`."""

_LARGEST = 127
_COUNT = np.dtype("<u4")
_SCALE = np.dtype("<f4")


class Quantized(NamedTuple):
    """Features in int8, value = code * scale."""

    codes: Int8[Array, "B S *layers D"]
    scales: Float32[Array, "B S *layers"]
    """Largest magnitude of each token and layer, divided by 127."""
    squares: Float32[Array, "B S *layers"]
    """Sum of the squares of the features of each token and layer."""
    errors: Float32[Array, "B S *layers"]
    """Sum of the squared rounding errors of each token and layer."""


def quantize(features: Float[Array, "B S *layers D"]) -> Quantized:
    """Round features to int8: each error is at most half the scale of its token and layer."""
    exact = features.astype(jnp.float32)
    scales = jnp.max(jnp.abs(exact), axis=-1) / _LARGEST
    safe = jnp.where(scales > 0, scales, 1.0)[..., None]
    codes = jnp.round(exact / safe).astype(jnp.int8)
    errors = exact - codes.astype(jnp.float32) * safe
    return Quantized(codes, scales, jnp.sum(exact**2, axis=-1), jnp.sum(errors**2, axis=-1))


def token_bytes(token_shape: Sequence[int], storage: Storage) -> int:
    """Return the bytes of a token of a stream.

    Args:
      token_shape: (D,) or (n, D), D the width of the features, n their layers.
      storage: type of the values.
    """
    *layers, width = token_shape
    return math.prod(layers) * (2 * width if storage == "bfloat16" else width + _SCALE.itemsize)


def packed(parts: Sequence[np.ndarray]) -> bytes:
    """Return the bytes of one stream's features of a caption.

    Args:
      parts: features [S, D] in bfloat16, or scales [S] and codes [S, D]; of several layers [S, n,
        D] and [S, n].
    """
    *scales, values = parts
    count = np.array(len(values), _COUNT).tobytes()
    kinds = [scale.astype(_SCALE, copy=False) for scale in scales]
    return b"".join([count, *(kind.tobytes() for kind in kinds), values.tobytes()])


def unpacked(
    content: memoryview, token_shapes: Sequence[tuple[int, ...]], storage: Storage
) -> list[Float[np.ndarray, "_S ... _D"]]:
    """Return the bfloat16 features of every stream.

    Args:
      content: results of `packed`, one per stream, joined.
      token_shapes: shape of a token's features in each stream, as in `token_bytes`.
      storage: type of the values.
    """
    found, start = [], 0

    def take(dtype: np.dtype, count: int) -> np.ndarray:
        nonlocal start
        begin, start = start, start + count * dtype.itemsize
        return np.frombuffer(content[begin:start], dtype)

    for token_shape in token_shapes:
        shape = int(take(_COUNT, 1)[0]), *token_shape
        if storage == "bfloat16":
            values = take(np.dtype(ml_dtypes.bfloat16), math.prod(shape)).reshape(shape)
        else:
            scales = take(_SCALE, math.prod(shape[:-1])).reshape(*shape[:-1], 1)
            codes = take(np.dtype(np.int8), math.prod(shape)).reshape(shape)
            values = (codes.astype(np.float32) * scales).astype(ml_dtypes.bfloat16)
        found.append(values)
    return found
