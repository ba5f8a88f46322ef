"""Captions of images that have only a class label."""

from __future__ import annotations

from lidit_jax.config.text import clean_text


def class_caption(name: str) -> str:
    """Return the caption of a class: "a photo of big dog" for "big_dog"."""
    return f"a photo of {clean_text(name.replace('_', ' '))}"
