"""8-bit matrix products, forward and backward, with qwix (https://github.com/google/qwix).

Operands are quantized dynamically, with one scale per row and per output channel from the largest
absolute value; the stored weights are not quantized, so checkpoints do not depend on it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from jaxtyping import Array, Float

from lidit_jax.errors import LiditError

_TYPES = {"int8": ("int8", "int8"), "fp8": ("float8_e4m3fn", "float8_e5m2")}
"""Types of the operands, and of the output gradient, which needs range more than precision."""


@functools.cache
def quantized_product(kind: str) -> Callable[..., Float[Array, "*N O"]]:
    """Return a quantized `(x [*N, I], kernel [I, O]) -> x @ kernel`, "int8" or "fp8".

    Raises:
      LiditError: when qwix is not installed.
    """
    try:
        import qwix
    except ImportError as error:
        raise LiditError(
            f"config.training.quantization={kind!r} needs qwix: pip install 'lidit-jax[quantized]'"
        ) from error
    operand, gradient = _TYPES[kind]
    rule = qwix.QtRule(weight_qtype=operand, act_qtype=operand, bwd_qtype=gradient)
    provider = qwix.QtProvider([rule])

    def product(x: Float[Array, "*N I"], kernel: Float[Array, "I O"]) -> Float[Array, "*N O"]:
        dimensions = (((x.ndim - 1,), (0,)), ((), ()))
        return provider.dot_general(x, kernel, dimensions)

    return product
