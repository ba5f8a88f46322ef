"""The convolution of the backbone's ResBlock and of the autoencoders, its weights split."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
from flax.linen.spmd import with_logical_constraint
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lidit_jax.models.layers import Axes


class Convolution(nn.Module):
    """A convolution with the whole kernel, `[B, H, W, I] -> [B, H', W', O]`.

    Stored split like any weight, the kernel is gathered where it is used: XLA's partitioner gives
    wrong values for a convolution that is split over input and output channels at once.
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
        """Args: images."""
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
