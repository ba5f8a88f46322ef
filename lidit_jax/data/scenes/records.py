"""Scenes as a record source and its index, without files and without memory per record."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float64, UInt8, UInt32, UInt64

from lidit_jax.config.schema import Config
from lidit_jax.data.caption_flags import CaptionFlag
from lidit_jax.data.scenes.source import SceneSource, open_scenes
from lidit_jax.data.sources.protocol import CAPTION, Place, Record, ScannedRecord, Shard

TRAIN, HELD_OUT = "train", "heldout"
"""Splits of the scenes, and names of their shards."""
PROMPTS = (
    "a red circle",
    "a blue square and a yellow triangle",
    "three green stars",
    "a purple heart to the left of an orange cross",
)
"""Default prompts of the image grid."""


class SceneRecords:
    """Record source of both splits, drawn when they are read."""

    def __init__(self, train: SceneSource, held_out: SceneSource):
        """Bind the splits.

        Args:
          train: scenes to train on.
          held_out: scenes for the validation loss.
        """
        self._splits = {TRAIN: train, HELD_OUT: held_out}

    def shards(self) -> Sequence[Shard]:
        """Return a shard per split."""
        return [Shard(name, repr(split)) for name, split in sorted(self._splits.items())]

    def scan(self, shard: Shard) -> Iterator[ScannedRecord]:
        """Yield the records of a split, in order."""
        split = self._splits[shard.name]
        for record in range(len(split)):
            place = _place(shard.name, record)
            image = partial(self._open_image, place)
            yield ScannedRecord(place.key, record, 0, image, self.read_captions(place))

    def read(self, place: Place) -> Record:
        """Draw one record; its image is a PPM file, as compression would take more time."""
        drawn = self._splits[place.shard][place.offset]
        height, width, _ = drawn["image"].shape
        header = f"P6 {width} {height} 255\n".encode()
        return Record(header + drawn["image"].tobytes(), {CAPTION: drawn["caption"]})

    def read_captions(self, place: Place) -> Mapping[str, str]:
        """Return the caption of one record, which is not drawn."""
        return {CAPTION: self._splits[place.shard].caption(place.offset)}

    def __repr__(self) -> str:
        return "scenes:"

    def _open_image(self, place: Place) -> io.BytesIO:
        return io.BytesIO(self.read(place).image)


@dataclass(frozen=True)
class SceneIndex:
    """Index of scenes: first those to train on, then the held-out ones."""

    train: SceneSource
    held_out: SceneSource

    def __len__(self) -> int:
        return len(self.train) + len(self.held_out)

    def place(self, record: int) -> Place:
        """Return the place of a record."""
        first = len(self.train)
        return _place(TRAIN, record) if record < first else _place(HELD_OUT, record - first)

    @property
    def width(self) -> UInt32[np.ndarray, " n"]:
        """Width of the images, in pixels."""
        return self._same(self.train.size, np.uint32)

    @property
    def height(self) -> UInt32[np.ndarray, " n"]:
        """Height of the images, in pixels."""
        return self.width

    @property
    def problem(self) -> UInt8[np.ndarray, " n"]:
        """Zeros: every scene can be used."""
        return self._same(0, np.uint8)

    @property
    def content(self) -> UInt64[np.ndarray, " n"]:
        """Record numbers, as all scenes differ."""
        return np.arange(len(self), dtype=np.uint64)

    @property
    def caption_chars(self) -> Mapping[str, UInt32[np.ndarray, " n"]]:
        """Least number of characters; captions are not generated for it."""
        return {CAPTION: self._same(1, np.uint32)}

    @property
    def caption_flags(self) -> Mapping[str, UInt8[np.ndarray, " n"]]:
        """Scripts of the captions."""
        scripts = {"en": CaptionFlag.LATIN, "zh": CaptionFlag.HAN}
        flags = scripts.get(self.train.language, CaptionFlag.LATIN | CaptionFlag.HAN)
        return {CAPTION: self._same(int(flags), np.uint8)}

    @property
    def numbers(self) -> Mapping[str, Float64[np.ndarray, " n"]]:
        """Empty: scenes have no scores."""
        return {}

    @property
    def perceptual_hash(self) -> None:
        """None: scenes are not drawn for it."""
        return None

    def _same(self, value: int, kind: type[np.unsignedinteger]) -> np.ndarray:
        """Return a column of one value, which takes no memory."""
        return np.broadcast_to(kind(value), len(self))


def open_scene_records(config: Config) -> tuple[SceneIndex, SceneRecords]:
    """Open the scenes of a run.

    Raises:
      LiditError: when the settings do not fit, see `SceneSource`.
    """
    splits = open_scenes(config, TRAIN), open_scenes(config, HELD_OUT)
    return SceneIndex(*splits), SceneRecords(*splits)


def _place(shard: str, record: int) -> Place:
    return Place(shard, f"{shard}/{record}", record, 0)
