"""One attention call for the whole model: image to image, image to text, text to text."""

from lidit_jax.attention.reference import attention, attention_weights

__all__ = ["attention", "attention_weights"]
