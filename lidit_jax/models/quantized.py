"""Matrix products in 8 bits, forward and backward, by qwix (https://github.com/google/qwix).

Operands are scaled when they are used, each row and each output channel by its largest absolute
value; weights stay as they are, so that checkpoints do not depend on it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from jaxtyping import Array, Float

from lidit_jax.errors import LiditError

_TYPES = {"int8": ("int8", "int8"), "fp8": ("float8_e4m3fn", "float8_e5m2")}
"""Of the operands, and of the gradient that comes back: it needs range more than precision."""


@functools.cache
def quantized_product(kind: str) -> Callable[..., Float[Array, "*N O"]]:
    """`(x [*N, I], kernel [I, O]) -> x @ kernel` for a module to call, "int8" or "fp8".

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
