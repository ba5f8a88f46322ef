"""The TFDS dataset of scenes is written and read without TensorFlow."""

import subprocess
import sys

import grain.python as grain
import numpy as np
import pytest
import tensorflow_datasets as tfds

from lidit_jax.data.scenes import SceneSource
from lidit_jax.data.scenes.builder import SceneConfig, write_scenes

CONFIG = {"size": 32, "language": "both", "train_records": 12, "heldout_records": 4, "seed": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("tfds"), SceneConfig(**CONFIG))


def test_records_are_those_of_the_source(folder):
    builder = tfds.builder_from_directory(str(folder))
    for split, records in (("train", 12), ("heldout", 4)):
        source = SceneSource(split, records, 32, "both", seed=5)
        written = builder.as_data_source(split)
        assert sorted(int(record["index"]) for record in written) == list(range(records))
        for record in written:
            index = int(record["index"])
            np.testing.assert_array_equal(record["image"], source[index]["image"])
            assert record["caption"].decode() == source.caption(index)


def test_records_carry_their_truth(folder):
    record = tfds.builder_from_directory(str(folder)).as_data_source("train")[0]
    scene = SceneSource("train", 12, 32, "both", seed=5).scene(int(record["index"]))
    assert record["task"].decode() == scene.task
    assert [shape.decode() for shape in record["objects"]["shape"]] == [
        thing.shape for thing in scene.objects
    ]
    np.testing.assert_allclose(record["objects"]["x"], [thing.x for thing in scene.objects], 1e-6)


def test_grain_batches_it(folder):
    written = tfds.builder_from_directory(str(folder)).as_data_source("train")
    dataset = grain.MapDataset.source(written).shuffle(seed=0).map(lambda record: record["image"])
    assert dataset.batch(4)[0].shape == (4, 32, 32, 3)


def test_tensorflow_is_never_imported(folder):
    program = (
        "import sys; import lidit_jax.data.scenes.builder; import tensorflow_datasets as tfds; "
        f"tfds.builder_from_directory({str(folder)!r}).as_data_source('train')[0]; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
