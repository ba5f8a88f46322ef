"""Made-up data stands where a run's own would: the task is the same."""

import jax
import pytest

from lidit_jax.benchmarks.synthetic import make_batch
from lidit_jax.benchmarks.synthetic_data import synthetic_data
from lidit_jax.data.training_data import TrainingData
from lidit_jax.models.flops import TextStream
from lidit_jax.training.lidit_task import LIDiTTask

STREAMS = (TextStream(width=16, tokens=16, prefix_length=2),)


@pytest.mark.parametrize("settings", [(), ("vae.source=an autoencoder", "model.patch=2")])
def test_a_task_is_built_of_it(settings, tiny_config, tmp_path):
    """Traced, not computed."""
    config = tiny_config(*settings)
    data = synthetic_data(config, STREAMS, records=4)
    task = LIDiTTask(config, data)
    params = jax.eval_shape(task.init, jax.random.key(0))
    batch = make_batch(config, STREAMS, 4)
    loss, _ = jax.eval_shape(task.loss, params, task.frozen, batch, jax.random.key(0))
    assert loss.shape == ()
    assert isinstance(task.data, TrainingData)
    assert len(task.data) == 4
    first = next(task.data.batches(0, tmp_path))
    assert len(first.records) == config.training.batch_size
    expected = task.data.example(0, config.training.batch_size)
    found = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), first.arrays)
    assert found == expected
    latents = first.arrays["latent"][:4]
    assert data.autoencoder.decode({}, latents).shape == (4, 32, 32, 3)
    assert len(data.prompts.masks[0]) == len(data.prompt_texts) == 2
