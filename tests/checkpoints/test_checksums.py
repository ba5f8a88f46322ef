"""Checksums see every bit and every place, and nothing of the mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lidit_jax.checkpoints.checksums import checksums


def test_a_single_bit_and_two_swapped_values_are_seen():
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    before = checksums({"a": jnp.asarray(values), "b": jnp.int32(3)})
    assert list(before) == ["['a']", "['b']"]
    flipped = values.copy()
    flipped.view(np.uint32)[2, 3] ^= 1
    swapped = values.copy()
    swapped[0, 0], swapped[3, 5] = values[3, 5], values[0, 0]
    for other in (flipped, swapped, -values, values.reshape(6, 4)[::-1].reshape(4, 6)):
        after = checksums({"a": jnp.asarray(other), "b": jnp.int32(3)})
        assert after["['a']"] != before["['a']"]
        assert after["['b']"] == before["['b']"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint32", "int8", "bool"])
def test_any_type_and_any_number_of_axes(dtype):
    values = jnp.arange(30).reshape(2, 3, 5).astype(dtype)
    changed = values.at[1, 2, 0].set(jnp.zeros((), dtype))
    assert checksums(values) != checksums(changed)
    assert checksums(values[0, 0, 0]) != {}


def test_the_mesh_does_not_show():
    mesh = jax.make_mesh((2, 4), ("data", "fsdp"))
    values = jax.random.normal(jax.random.key(0), (16, 8))
    split = jax.device_put(values, NamedSharding(mesh, PartitionSpec("fsdp", "data")))
    assert checksums([values]) == checksums([split])


@pytest.mark.parametrize("part", [1, 100, 2**24])
@pytest.mark.parametrize("shape", [(7, 5, 3), (9,), (0, 4), ()])
def test_an_array_of_numpy_is_worked_off_in_parts(part, shape, monkeypatch):
    """Of any size: one row, some rows with a shorter last part, all of it."""
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    monkeypatch.setattr("lidit_jax.checkpoints.checksums._PART", part)
    assert checksums([values]) == checksums([jnp.asarray(values)])
