"""Datasets that tfds itself has built, as ArrayRecord."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from lidit_jax.data.sources.tfds import TfdsSource
from lidit_jax.errors import LiditError


def build(folder, features, examples, name="small_pictures", file_format="array_record"):
    """Builds a dataset with the splits train and test; gives the folder of its version."""

    class Pictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.0")
        pkg_dir_path = folder

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in ("train", "test")}

        def _generate_examples(self):
            yield from enumerate(examples())

    Pictures.name = name
    builder = Pictures(data_dir=folder, file_format=file_format)
    builder.download_and_prepare()
    return str(builder.data_dir)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def captions(data_dir, picture, monkeypatch):
    """A dataset as `coco_captions` is built."""
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(data_dir))
    text = tfds.features.Text()
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "title": text,
        "captions": tfds.features.Sequence({"id": np.int64, "text": text}),
        "score": tfds.features.Scalar(np.float32),
        "label": tfds.features.ClassLabel(names=["cat", "big_dog"]),
    }

    def examples():
        for i in range(7):
            yield {
                "image": io.BytesIO(picture((i, 0, 0))),
                "title": f"title {i}",
                "captions": [{"id": 1, "text": "one"}, {"id": 2, "text": f"two {i}"}],
                "score": i / 2,
                "label": i % 2,
            }

    return build(data_dir, features, examples)


def test_what_tfds_builds_is_read(captions, picture, scanned, same_when_read):
    source = TfdsSource("small_pictures")
    rows = same_when_read(source)
    assert len(rows) == 7
    titles = {captions["title"]: (captions, numbers) for _, _, captions, numbers, _ in rows}
    assert titles["title 3"] == (
        {"title": "title 3", "captions/text_0": "one", "captions/text_1": "two 3"},
        {"score": 1.5, "label": 1.0},
    )
    images = {record.captions["title"]: image for _, record, image in scanned(source)}
    assert images["title 3"] == picture((3, 0, 0)), "as it is stored"
    assert rows[0][1] == "small_pictures-train.array_record-00000-of-00001/0"
    assert same_when_read(TfdsSource("small_pictures:1.2.0")) == rows
    assert same_when_read(TfdsSource(captions)) == rows
    (shard,) = TfdsSource("small_pictures@test").shards()
    assert shard.name == "small_pictures-test.array_record-00000-of-00001"


def test_class_labels_are_captions_where_there_are_no_texts(data_dir, picture, same_when_read):
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["cat", "big_dog"]),
    }

    def examples():
        yield {"image": io.BytesIO(picture()), "label": 1}

    rows = same_when_read(TfdsSource(build(data_dir, features, examples, "labelled")))
    assert rows[0][2] == {"label": "a photo of big dog"}


def test_a_bucket(captions, copy, same_when_read):
    url = copy(Path(captions), "gs")
    assert same_when_read(TfdsSource(url)) == same_when_read(TfdsSource(captions))


def test_tensorflow_is_not_imported(captions):
    code = (
        "import sys; from lidit_jax.data.sources.tfds import TfdsSource\n"
        f"source = TfdsSource({captions!r})\n"
        "records = [r for shard in source.shards() for r in source.scan(shard)]\n"
        "assert len(records) == 7 and records[0].open_image().read(4)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_datasets_and_splits_that_are_not_there_are_named(captions):
    with pytest.raises(LiditError, match="run `tfds build nothing --file_format=array_record`"):
        TfdsSource("nothing").shards()
    with pytest.raises(LiditError, match=r"no split 'val': name one of .*'train'"):
        TfdsSource("small_pictures@val").shards()
    with pytest.raises(LiditError, match="names no dataset: write tfds:NAME"):
        TfdsSource("")


def test_another_file_format_is_refused(captions, tmp_path):
    folder = Path(shutil.copytree(captions, tmp_path / "small_pictures" / "1.2.0"))
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(LiditError, match=r"prepared as tfrecord, .*--file_format=array_record`"):
        TfdsSource(str(folder)).shards()
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(LiditError, match="is no dataset of tfds, or a damaged one"):
        TfdsSource(str(folder)).shards()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"text": tfds.features.Text()}, "has 0 features of images, not one called 'image'"),
        ({"image": tfds.features.Image()}, "has no feature of text and no class labels, only"),
    ],
)
def test_datasets_without_images_or_captions_are_named(features, message, data_dir, picture):
    def examples():
        yield {n: "a" if n == "text" else io.BytesIO(picture()) for n in features}

    folder = build(data_dir, features, examples, f"only_{next(iter(features))}")
    with pytest.raises(LiditError, match=message):
        TfdsSource(folder).shards()
