"""The network of the paper: LI-DiT, its token refiners, and the layers they are made of."""

from lidit_jax.models.lidit import LIDiT

__all__ = ["LIDiT"]
