"""Storage of one caption's text features: bfloat16, or int8 with one scale per token."""

from __future__ import annotations

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

    codes: Int8[Array, "B S D"]
    scales: Float32[Array, "B S"]
    """Largest magnitude of each token, divided by 127."""
    squares: Float32[Array, "B S"]
    """Sum of the squares of each token's features."""
    errors: Float32[Array, "B S"]
    """Sum of the squared rounding errors of each token."""


def quantize(features: Float[Array, "B S D"]) -> Quantized:
    """Round features to int8: each error is at most half the token's scale."""
    exact = features.astype(jnp.float32)
    scales = jnp.max(jnp.abs(exact), axis=-1) / _LARGEST
    safe = jnp.where(scales > 0, scales, 1.0)[..., None]
    codes = jnp.round(exact / safe).astype(jnp.int8)
    errors = exact - codes.astype(jnp.float32) * safe
    return Quantized(codes, scales, jnp.sum(exact**2, axis=-1), jnp.sum(errors**2, axis=-1))


def token_bytes(width: int, storage: Storage) -> int:
    """Return the bytes of a token of a stream.

    Args:
      width: width D of the features.
      storage: type of the values.
    """
    return 2 * width if storage == "bfloat16" else width + _SCALE.itemsize


def packed(parts: Sequence[np.ndarray]) -> bytes:
    """Return the bytes of one stream's features of a caption.

    Args:
      parts: features [n, D] in bfloat16, or scales [n] and codes [n, D].
    """
    *scales, values = parts
    count = np.array(len(values), _COUNT).tobytes()
    kinds = [scale.astype(_SCALE, copy=False) for scale in scales]
    return b"".join([count, *(kind.tobytes() for kind in kinds), values.tobytes()])


def unpacked(
    content: memoryview, widths: Sequence[int], storage: Storage
) -> list[Float[np.ndarray, "n D"]]:
    """Return the bfloat16 features of every stream.

    Args:
      content: results of `packed`, one per stream, joined.
      widths: width D of each stream.
      storage: type of the values.
    """
    found, start = [], 0

    def take(dtype: np.dtype, count: int) -> np.ndarray:
        nonlocal start
        begin, start = start, start + count * dtype.itemsize
        return np.frombuffer(content[begin:start], dtype)

    for width in widths:
        count = int(take(_COUNT, 1)[0])
        if storage == "bfloat16":
            values = take(np.dtype(ml_dtypes.bfloat16), count * width).reshape(count, width)
        else:
            scales = take(_SCALE, count)
            codes = take(np.dtype(np.int8), count * width).reshape(count, width)
            values = (codes.astype(np.float32) * scales[:, None]).astype(ml_dtypes.bfloat16)
        found.append(values)
    return found
