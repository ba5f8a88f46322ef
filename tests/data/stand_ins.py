"""What several tests of the data put in the place of captions."""

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from lidit_jax.data.sources.protocol import Place, Record, Shard


@dataclass
class Columns:
    """An index of records that are all fine, until a test changes a column."""

    count: int
    width: np.ndarray = field(init=False)
    height: np.ndarray = field(init=False)
    problem: np.ndarray = field(init=False)
    content: np.ndarray = field(init=False)
    caption_chars: dict[str, np.ndarray] = field(init=False)
    caption_flags: dict[str, np.ndarray] = field(init=False)
    numbers: dict[str, np.ndarray] = field(init=False)
    perceptual_hash: np.ndarray | None = None

    def __post_init__(self):
        n = self.count
        self.width, self.height = np.full((2, n), 64, np.uint32)
        self.problem, self.content = np.zeros(n, np.uint8), np.arange(n, dtype=np.uint64)
        self.caption_chars = {"caption": np.full(n, 20, np.uint32)}
        self.caption_flags = {"caption": np.full(n, 16, np.uint8)}
        self.numbers = {}

    def __len__(self):
        return self.count

    def place(self, record):
        return Place(f"shard {record // 10}", f"key {record}", record, 0)


def picture(color, height=64, width=64, kind="PNG"):
    """A file of one color, as bytes."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), color).save(file, kind)
    return file.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def broken_off(image=NOISE):
    """Half of the file of a picture, as bytes."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()[: file.tell() // 2]


class Painted:
    """A source whose record i is a picture of color (i % 256, i // 256, 7) and has one caption.

    Some of its records can be other bytes, other captions, or exceptions.
    """

    def __init__(self, index, images=None, captions=None):
        self.index, self.images, self.captions = index, images or {}, captions or {}

    def shards(self):
        return [Shard(f"shard {i}", "1") for i in range(-(-len(self.index) // 10))]

    def scan(self, shard):
        raise AssertionError("reading needs no scan")

    def read(self, place):
        i = place.offset
        image = self.images.get(i)
        if isinstance(image, Exception):
            raise image
        if image is None:
            size = int(self.index.height[i]), int(self.index.width[i])
            image = picture((i % 256, i // 256, 7), *size)
        return Record(image, self.captions.get(i, {"caption": f" picture  {i} "}))

    def __repr__(self):
        return "painted:"
