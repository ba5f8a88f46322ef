"""A task that compiles in a blink, on data of two image shapes, for tests of the loop."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.order import Order
from lidit_jax.data.training_data import HostBatch

SHAPES = ((48, 24), (32, 32))
RECORDS = 60
HELD_OUT = (5, 11)


class TwoShapes:
    """Records of two shapes in turn, the last ones held out; a latent is full of its number."""

    contents = None
    shapes = SHAPES
    validation_buckets = (0, 1)
    validation_rows = sum(HELD_OUT)

    def __init__(self, config):
        buckets = np.arange(RECORDS, dtype=np.uint8) % 2
        self.counts = {}
        self.order = Order([BucketMembers(buckets, 2)], config.training.batch_size, config.seed)

    def __len__(self):
        return RECORDS

    def batches(self, position, workdir):
        for number in itertools.count(position):
            drawn = self.order.batch(number, jax.process_index(), jax.process_count())
            yield HostBatch(drawn.bucket, drawn.records, arrays(drawn.bucket, drawn.records))

    def validation(self, batch_size, share):
        for bucket, count in enumerate(HELD_OUT):
            for first in range(0, count, batch_size):
                rows = np.arange(first, first + batch_size)
                records = RECORDS + 100 * bucket + rows
                valid = {"valid": rows < count}
                yield HostBatch(bucket, records, arrays(bucket, records) | valid)

    def example(self, bucket, rows):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype),
            arrays(bucket, np.arange(1)),
        )


def arrays(bucket, records):
    height, width = SHAPES[bucket]
    latent = np.ones((len(records), height // 8, width // 8, 1), np.float32)
    return {
        "latent": latent * records[:, None, None, None].astype(np.float32) / RECORDS,
        "index": records.astype(np.int32),
    }


class Linear:
    """Learns one factor that makes all latents 1; the loss is a mean, whatever the shape."""

    provenance = Provenance()
    training_flops = None

    def __init__(self, config):
        self.data, self.frozen = TwoShapes(config), {}

    def frozen_shardings(self, mesh):
        return {}

    def encode(self, frozen, batch):
        return batch

    def init(self, key):
        kernel = nn.LogicallyPartitioned(0.1 * jax.random.normal(key, (1, 1)), (None, None))
        return {"scale": {"kernel": kernel}}

    def losses(self, params, batch):
        error = batch["latent"] @ params["scale"]["kernel"] - 1
        return jnp.mean(jnp.square(error), axis=(1, 2, 3))

    def loss(self, params, frozen, batch, key):
        return jnp.mean(self.losses(params, batch)), {}

    def validation_losses(self, params, frozen, batch):
        return self.losses(params, batch)

    def sample_images(self, params, frozen):
        return np.zeros((1, 8, 8, 3), np.uint8), ["none"]

    def scores(self, params, frozen):
        return {}
