"""Procedural captioned scenes with known truth: the data of the quick start and of the scorer.

A scene is one to four colored shapes on a calm background. Its caption is a `Claim`, phrased in
English or Chinese, and the claim can be checked on pixels (`lidit_jax.evaluation`).
"""

from lidit_jax.data.scenes.captions import caption
from lidit_jax.data.scenes.render import render
from lidit_jax.data.scenes.scene import Claim, Group, Scene, SceneObject
from lidit_jax.data.scenes.source import SceneSource

__all__ = ["Claim", "Group", "Scene", "SceneObject", "SceneSource", "caption", "render"]
