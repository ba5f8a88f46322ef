"""The mesh: sizes that fit the devices, and shardings of batches."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from lidit_jax.config import MeshConfig
from lidit_jax.errors import LiditError
from lidit_jax.parallel.mesh import batch_sharding, make_mesh, replicated


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((-1, 1, 1), (8, 1, 1)), ((2, -1, 2), (2, 2, 2)), ((1, 4, 2), (1, 4, 2))],
)
def test_sizes_multiply_to_the_devices(sizes, expected):
    mesh = make_mesh(MeshConfig(*sizes))
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.devices.shape == expected
    assert mesh.axis_types == (AxisType.Auto,) * 3, "flax ignores constraints on explicit axes"


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
    assert str(refusal.value).startswith("config.mesh={'data': ")


def test_batches_are_split_over_data_and_fsdp_and_the_rest_is_whole():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    batch = jax.device_put(np.arange(8), batch_sharding(mesh))
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2,)}
    whole = jax.device_put(np.arange(8), replicated(mesh))
    assert {shard.data.shape for shard in whole.addressable_shards} == {(8,)}
