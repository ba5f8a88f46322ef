"""Datasets prepared by TensorFlow Datasets as ArrayRecord, read without TensorFlow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lidit_jax.data.sources.array_record import Decoded, decoded, read, scanned
from lidit_jax.data.sources.class_captions import class_caption
from lidit_jax.data.sources.examples import IMAGE, parse_example
from lidit_jax.data.sources.protocol import Place, Record, ScannedRecord, Shard
from lidit_jax.data.sources.record_files import RecordFiles
from lidit_jax.errors import LiditError, quoted
from lidit_jax.io.files import Files
from lidit_jax.io.paths import to_path

_NAME = re.compile(r"(?P<name>[^@]+?)(?:@(?P<split>\w+))?")


class TfdsSource:
    """Split of a TensorFlow Datasets dataset; each of its files is a shard.

    The image's encoded file is taken as it is stored. Features of text are captions: those of
    several texts are called `captions/text_0`, `captions/text_1`, …. Where there are none, class
    labels give "a photo of {class}". Single numbers are numbers.
    """

    def __init__(self, name: str):
        """Set the path; no file is read yet.

        Args:
          name: `NAME[/CONFIG][:VERSION][@SPLIT]` of a dataset in `$TFDS_DATA_DIR` (default:
            `~/tensorflow_datasets`), or the folder of one version of it; the split is "train"
            unless another is named.

        Raises:
          LiditError: when the name can be none.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise LiditError(f"tfds:{name} names no dataset: write tfds:NAME[/CONFIG][:VERSION]")
        self._source, self._name, self._split = name, match["name"], match["split"] or "train"

    def __reduce__(self) -> tuple[type[TfdsSource], tuple[str]]:
        return TfdsSource, (self._source,)

    def __repr__(self) -> str:
        return f"tfds:{self._source}"

    def shards(self) -> Sequence[Shard]:
        """Return one shard per file of the split.

        Raises:
          LiditError: when the dataset is not prepared as ArrayRecord, or lacks the split, an image
            or captions.
        """
        files = self._dataset.records.files
        return [Shard(name, files.version(name)) for name in self._dataset.names]

    def scan(self, shard: Shard) -> Iterator[ScannedRecord]:
        """Yield the records of a file, in order."""
        for number, content in enumerate(self._dataset.records.scan(shard.name)):
            found = self._decoded(content, shard.name, number)
            yield scanned(found, f"{shard.name}/{number}", number)

    def read(self, place: Place) -> Record:
        """Read one record. Raises `LiditError` when it is no longer there or cannot be used."""
        content = self._dataset.records.read(place.shard, place.offset)
        return read(self._decoded(content, place.shard, place.offset), place)

    def _decoded(self, content: bytes, name: str, number: int) -> Decoded:
        where = f"{self._dataset.records.files.named(name)}, record {number}"
        return decoded(self._dataset.features.chosen(parse_example(content, where)), where)

    @cached_property
    def _dataset(self) -> _Dataset:
        builder = self._builder()
        file_format = getattr(builder.info.file_format, "value", "none")
        if file_format != "array_record":
            raise LiditError(
                f"tfds:{self._name} is prepared as {file_format}, which is not read one by one: "
                f"run `tfds build {self._name} --file_format=array_record`"
            )
        splits = builder.info.splits
        if self._split not in splits:
            raise LiditError(
                f"tfds:{self._name} has no split {self._split!r}: name one of "
                f"{quoted(splits)}, as tfds:{self._name}@{next(iter(splits), 'train')}"
            )
        files = Files(os.fspath(builder.data_dir))
        names = tuple(sorted(splits[self._split].filenames))
        return _Dataset(RecordFiles(files), names, _features(builder.info.features, self._name))

    def _builder(self) -> Any:
        """Return the dataset's metadata from its files; its code is not run."""
        try:
            import tensorflow_datasets as tfds
            from tensorflow_datasets.core.read_only_builder import builder_from_files
        except ImportError as error:
            raise LiditError(
                f"tfds:{self._name} needs tensorflow-datasets: pip install tensorflow-datasets"
            ) from error
        try:
            if os.path.exists(self._name) or "://" in self._name:
                return tfds.builder_from_directory(to_path(self._name))
            return builder_from_files(self._name)
        except tfds.core.DatasetNotFoundError as error:
            raise LiditError(
                f"tfds:{self._name} is not prepared in $TFDS_DATA_DIR or ~/tensorflow_datasets: "
                f"run `tfds build {self._name} --file_format=array_record`"
            ) from error
        except LiditError:
            raise
        # Damaged JSON and unknown features lead to exceptions of many types.
        except Exception as error:
            reason = str(error).partition("\n")[0][:200]
            raise LiditError(
                f"tfds:{self._name} is no dataset of tfds, or a damaged one: build it again "
                f"({reason})"
            ) from error


class _Features(NamedTuple):
    image: str
    others: frozenset[str]
    """Text and scalar number features."""
    classes: Mapping[str, tuple[str, ...]]
    """Names of classes by feature, if they are used as captions."""

    def chosen(self, example: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """Return the used features of an example, with the image named as in our own files."""
        chosen = {name: values for name, values in example.items() if name in self.others}
        for name, classes in self.classes.items():
            number = example.get(name, [-1])[0]
            if 0 <= number < len(classes):
                chosen[name] = [class_caption(classes[number]).encode()]
        if self.image in example:
            chosen[IMAGE] = example[self.image]
        return chosen


class _Dataset(NamedTuple):
    records: RecordFiles
    names: tuple[str, ...]
    features: _Features


def _features(root: Any, named: str) -> _Features:
    """Select the image, caption and number features.

    Raises:
      LiditError: when there is no image, more than one, or no captions.
    """
    from tensorflow_datasets import features as kinds

    leaves = dict(_leaves(root, ""))
    images = [n for n, f in leaves.items() if isinstance(f, kinds.Image) and n in root]
    described = ", ".join(f"{n!r} ({type(f).__name__})" for n, f in list(leaves.items())[:10])
    if len(images) > 1 and IMAGE in images:
        images = [IMAGE]
    if len(images) != 1:
        raise LiditError(
            f"tfds:{named} has {len(images)} features of images, not one called {IMAGE!r}, among "
            f"{described}: convert it to another format"
        )
    if np.dtype(leaves[images[0]].np_dtype) == np.float32:
        raise LiditError(
            f"tfds:{named}: its images {images[0]!r} are numbers of 32 bits, packed in PNG: "
            "convert it to another format"
        )
    texts = {name for name, feature in leaves.items() if isinstance(feature, kinds.Text)}
    labels = {n: tuple(f.names) for n, f in leaves.items() if isinstance(f, kinds.ClassLabel)}
    if not texts and not labels:
        raise LiditError(
            f"tfds:{named} has no feature of text and no class labels, only {described}: convert "
            "it to a format with captions"
        )
    numbers = {
        name
        for name, feature in leaves.items()
        if feature.shape == () and np.dtype(feature.np_dtype).kind in "biuf" and name not in texts
    }
    classes = {} if texts else labels
    return _Features(images[0], frozenset(texts | (numbers - classes.keys())), classes)


def _leaves(feature: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield features with values, by their names in an example."""
    from tensorflow_datasets import features as kinds

    if isinstance(feature, kinds.FeaturesDict):
        for key, inner in feature.items():
            yield from _leaves(inner, f"{name}/{key}" if name else key)
    elif isinstance(feature, kinds.Sequence):
        yield from _leaves(feature.feature, name)
    else:
        yield name, feature
