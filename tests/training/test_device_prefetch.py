"""Batches of several image shapes on the devices, whose captions are encoded together."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.data.training_data import HostBatch
from lidit_jax.parallel.mesh import batch_sharding, make_mesh
from lidit_jax.training.device_prefetch import DevicePrefetch
from tests.training.stand_ins import SHAPES, Linear, TwoShapes


class Captioned(TwoShapes):
    """Captions of three tokens that are the record's number."""

    def batches(self, position, workdir):
        for batch in super().batches(position, workdir):
            yield HostBatch(batch.bucket, batch.records, batch.arrays | captions(batch.records))

    def example(self, bucket, rows):
        shape = (rows, 3)
        return super().example(bucket, rows) | {
            "ids": (jax.ShapeDtypeStruct(shape, np.int32),),
            "masks": (jax.ShapeDtypeStruct(shape, bool),),
        }


def captions(records):
    ids = np.repeat(records[:, None], 3, axis=1).astype(np.int32)
    return {"ids": (ids,), "masks": (np.ones(ids.shape, bool),)}


class Encoding(Linear):
    """Its features are twice the ids."""

    def __init__(self, config):
        super().__init__(config)
        self.data, self.calls = Captioned(config), 0

    def encode(self, frozen, batch):
        self.calls += 1
        rest = {name: value for name, value in batch.items() if name != "ids"}
        return rest | {
            "features": tuple(2 * jnp.asarray(ids, jnp.bfloat16) for ids in batch["ids"])
        }


def prefetch(config, task):
    return DevicePrefetch(task, config, {}, batch_sharding(make_mesh(config.mesh)))


@pytest.mark.parametrize("position", [0, 1, 3, 8])
def test_groups_span_shapes_and_begin_at_multiples_wherever_a_run_goes_on(
    position, tiny_config, tmp_path
):
    config = tiny_config("data.encode_steps=3")
    task = Encoding(config)
    ours = prefetch(config, task)
    found = list(itertools.islice(ours.training(position, tmp_path), 7))
    assert {batch.bucket for batch in found} == {0, 1}
    assert task.calls == 1, "traced once: captions of all shapes are of one shape"
    for number, batch in enumerate(found, start=position):
        drawn = task.data.order.batch(number)
        assert batch.bucket == drawn.bucket
        np.testing.assert_array_equal(batch.records, drawn.records)
        np.testing.assert_array_equal(batch.arrays["index"], drawn.records)
        (features,) = batch.arrays["features"]
        np.testing.assert_array_equal(features, 2 * np.repeat(drawn.records[:, None], 3, axis=1))
        assert batch.arrays["latent"].shape[1] == SHAPES[batch.bucket][0] // 8
        same(batch.arrays, ours.training_example(batch.bucket))


def test_single_batches_are_encoded_by_the_step(tiny_config, tmp_path):
    task = Encoding(tiny_config())
    ours = prefetch(tiny_config(), task)
    for batch in itertools.islice(ours.training(0, tmp_path), 3):
        assert "ids" in batch.arrays
        same(batch.arrays, ours.training_example(batch.bucket))
    assert task.calls == 0


def test_validation_is_in_one_batch_size(tiny_config):
    ours = prefetch(tiny_config(), Linear(tiny_config()))
    found = list(ours.validation(8))
    assert [batch.bucket for batch in found] == [0, 1, 1]
    for batch in found:
        same(batch.arrays, ours.validation_example(batch.bucket, 8))


def same(arrays, example):
    """Whether a program for `example` takes `arrays`."""
    assert jax.tree.structure(arrays) == jax.tree.structure(example)
    for array, shape in zip(jax.tree.leaves(arrays), jax.tree.leaves(example), strict=True):
        assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
        assert array.sharding.is_equivalent_to(shape.sharding, array.ndim)
