"""Network of the paper in Flax: the LI-DiT backbone, its token refiners, and their layers.

The network predicts from noisy latents, a time and text features. Text encoders, autoencoders, the
diffusion process and attention kernels are in subpackages of those names.
"""

from lidit_jax.models.lidit import LIDiT

__all__ = ["LIDiT"]
