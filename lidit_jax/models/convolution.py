"""Convolution with sharded weights, for the backbone's ResBlock and the autoencoders."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
from flax.linen.spmd import with_logical_constraint
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lidit_jax.models.layers import Axes


class Convolution(nn.Module):
    """2-D convolution with a gathered kernel, `[B, H, W, I] -> [B, H', W', O]`.

    The kernel is stored sharded and gathered for use: XLA's partitioner gives wrong values for a
    convolution sharded over input and output channels at once.
    """

    features: int
    dtype: DTypeLike
    axes: Axes = (None, "embed")
    """Logical names of the kernel's input and output channels."""
    size: int = 3
    """Side of the kernel."""
    strides: int = 1
    padding: str | Sequence[tuple[int, int]] = "SAME"
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B H2 W2 O"]:
        """Apply the convolution to images."""
        kernel = self.param(
            "kernel",
            nn.with_logical_partitioning(self.kernel_init, (None, None, *self.axes)),
            (self.size, self.size, x.shape[-1], self.features),
            unbox=True,
        )
        out = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            with_logical_constraint(kernel.astype(self.dtype), (None,) * 4),
            (self.strides, self.strides),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if self.use_bias:
            out = out + self.param("bias", nn.initializers.zeros, (self.features,))
        return out.astype(self.dtype)
