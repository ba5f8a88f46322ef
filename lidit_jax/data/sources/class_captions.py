"""Captions of images of which only the class is known."""

from __future__ import annotations

from lidit_jax.config.text import clean_text


def class_caption(name: str) -> str:
    """What an image of a class is called: "a photo of big dog" for "big_dog"."""
    return f"a photo of {clean_text(name.replace('_', ' '))}"
