"""The networks: LI-DiT, its refiners and the image autoencoder."""

from lidit_jax.models.lidit import LIDiT

__all__ = ["LIDiT"]
