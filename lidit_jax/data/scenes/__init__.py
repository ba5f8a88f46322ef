"""Synthetic dataset of colored shapes with captions, used by the quick start and the benchmark.

A scene is one to four colored shapes on a plain background. Its caption states a `Claim` in English
or Chinese, and `lidit_jax.evaluation` checks from pixels whether a generated image satisfies it.
Photographs and other captioned images are read by the other modules of `lidit_jax.data`.
"""

from lidit_jax.data.scenes.captions import caption
from lidit_jax.data.scenes.render import render
from lidit_jax.data.scenes.scene import Claim, Group, Scene, SceneObject
from lidit_jax.data.scenes.source import SceneSource

__all__ = ["Claim", "Group", "Scene", "SceneObject", "SceneSource", "caption", "render"]
