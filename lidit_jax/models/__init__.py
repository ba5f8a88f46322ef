"""The paper's network LI-DiT, its token refiners, and their layers."""

from lidit_jax.models.lidit import LIDiT

__all__ = ["LIDiT"]
