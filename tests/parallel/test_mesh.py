"""The mesh: sizes that fit the devices, and shardings of batches."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import MeshConfig
from lidit_jax.errors import LiditError
from lidit_jax.parallel.mesh import (
    batch_sharding,
    check_divisions,
    check_shapes_divide,
    make_mesh,
    own_mesh,
    replicated,
)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((-1, 1, 1), (8, 1, 1)), ((2, -1, 2), (2, 2, 2)), ((1, 4, 2), (1, 4, 2))],
)
def test_sizes_multiply_to_the_devices(sizes, expected):
    mesh = make_mesh(MeshConfig(*sizes))
    assert mesh.axis_names == ("replica", "data", "fsdp", "context", "tensor")
    data, fsdp, tensor = expected
    assert mesh.devices.shape == (1, data, fsdp, 1, tensor)
    assert mesh.axis_types == (AxisType.Auto,) * 5, "flax ignores constraints on explicit axes"


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((3, 1, 1), "does not fit 8 devices: the sizes must multiply to that number"),
        ((-1, 3, 1), "does not fit 8 devices"),
        ((-1, -1, 1), "sizes are positive, one may be -1"),
        ((8, 0, 1), "sizes are positive, one may be -1"),
        ((-2, 1, 1), "sizes are positive, one may be -1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, expected):
    with pytest.raises(LiditError, match=expected) as refusal:
        make_mesh(MeshConfig(*sizes))
    assert str(refusal.value).startswith("config.mesh={'replica': ")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ("training.batch_size=12",),
            "batch_size=12 does not divide over 8 devices: take a multiple of 8, such as 16",
        ),
        (
            ("training.batch_size=24", "training.accumulation=2"),
            "over 8 devices and 2 parts: take a multiple of 16, such as 32",
        ),
        (
            ("mesh.tensor=8",),
            "config.mesh.tensor=8 does not divide config.model.heads=4: the nearest that do are 4",
        ),
        (
            ("mesh.context=8", "data.image_size=24"),
            "config.mesh.context=8 does not divide the tokens "
            "of an image=9: the nearest that do are 3 and 9",
        ),
    ],
)
def test_a_mesh_that_does_not_divide_is_refused_with_the_nearest_that_does(
    overrides, expected, repository
):
    config = load_recipe(str(repository / "tests" / "tiny_recipe.py"), overrides)
    with pytest.raises(LiditError, match=expected):
        check_divisions(config, make_mesh(config.mesh))


def test_every_image_shape_must_divide_over_the_context(tiny_config):
    """Of 64 px in patches of 8, the square has 64 tokens and its neighbors 63."""
    shapes = ((64, 64), (56, 72))
    config = tiny_config("data.image_size=64", "mesh.context=4")
    mesh = make_mesh(config.mesh)
    check_shapes_divide(config, mesh, shapes[:1])
    with pytest.raises(LiditError) as refusal:
        check_shapes_divide(config, mesh, shapes)
    assert str(refusal.value) == (
        "config.mesh.context=4 does not divide the 63 tokens of images of 72x56 px: set "
        "config.data.buckets.shapes=1 for squares only, or another config.mesh.context"
    )
    check_shapes_divide(tiny_config("training.task=vae"), mesh, shapes)


def test_batches_are_split_over_data_and_fsdp_and_the_rest_is_whole():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    batch = jax.device_put(np.arange(8), batch_sharding(mesh))
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2,)}
    whole = jax.device_put(np.arange(8), replicated(mesh))
    assert {shard.data.shape for shard in whole.addressable_shards} == {(8,)}


def test_programs_of_several_cpu_devices_are_not_read_from_disk(tmp_path):
    # jaxlib would run their collectives in another order on each device, until all wait for ever.
    program = (
        "import os, sys\n"
        "os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=' + sys.argv[1]\n"
        "import jax, jax.numpy as jnp\n"
        "from lidit_jax.config.schema import MeshConfig\n"
        "from lidit_jax.parallel.mesh import batch_sharding, make_mesh\n"
        "jax.config.update('jax_platforms', 'cpu')\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "mesh = make_mesh(MeshConfig())\n"
        "rows = jax.device_put(jnp.ones((4, 2)), batch_sharding(mesh))\n"
        "assert jax.jit(jnp.sum)(rows) == 8\n"
    )
    stored = {}
    for devices in ("1", "4"):
        folder = tmp_path / devices
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder)}
        command = [sys.executable, "-c", program, devices]
        subprocess.run(command, env=environment, check=True, timeout=120)
        stored[devices] = [file.name for file in folder.glob("*") if "sum" in file.name]
    assert stored["1"]
    assert not stored["4"]


def test_a_process_has_a_mesh_of_its_own_devices():
    mesh = own_mesh()
    assert mesh.shape["fsdp"] == mesh.size == jax.local_device_count()
