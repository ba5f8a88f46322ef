"""Settings of every test, made before JAX is first imported: 8 CPU devices, exact float32."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
).strip()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import pytest
from absl import flags

jax.config.update("jax_default_matmul_precision", "highest")
# Grain's loader reads absl flags, which only `absl.app.run` would parse.
flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def repository(request: pytest.FixtureRequest):
    """The root of the checkout."""
    return request.config.rootpath
