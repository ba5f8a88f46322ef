"""Random parameters of tiny networks, without compiling their initialization."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np


def random_parameters(init: Callable, *arguments: Any, seed: int = 0) -> dict:
    """Unboxed parameters as a trained network may have them, none of them zero.

    Args:
      init: a module's `init`.
      arguments: what it is called with after the key; only their shapes matter.
      seed: decides all values.
    """
    shapes = nn.unbox(jax.eval_shape(lambda: init(jax.random.key(0), *arguments))["params"])
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        values = rng.normal(size=leaf.shape).astype(np.float32)
        match path[-1].key:
            case "kernel":
                fan_in = leaf.shape[-2] * (9 if leaf.ndim == 4 else 1)  # 9: a 3x3 convolution
                values /= np.sqrt(fan_in)
            case "scale":
                values = 1 + 0.2 * values
            case _:
                values *= 0.2
        return jax.numpy.asarray(values)

    return jax.tree_util.tree_map_with_path(draw, shapes)
