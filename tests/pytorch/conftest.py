"""The small model and its inputs, as the tests of the JAX model have them."""

from tests.models.conftest import inputs, small_config

__all__ = ["inputs", "small_config"]
