"""Data to cache: painted pictures in three shapes, of two sources."""

import numpy as np

from lidit_jax.config.data_settings import CaptionSettings, FilterSettings
from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.contents import Contents
from lidit_jax.data.held_out import HeldOut
from lidit_jax.data.opened_data import OpenedData
from lidit_jax.data.order import Order
from lidit_jax.data.streamed_source import OWN_CAPTIONS, StreamedSource
from tests.data.stand_ins import Columns, Painted

SHAPES = ((24, 16), (16, 16), (16, 24))
COUNTS = (40, 23)


def opened(
    images=None,
    captions=None,
    counts=COUNTS,
    columns=("caption",),
    identity="first",
    shared=OWN_CAPTIONS,
):
    """Tall, square and wide pictures in turn; every seventh record is not used."""
    sources, used = [], []
    for count in counts:
        index = Columns(count)
        index.height[0::3], index.width[2::3] = 96, 96
        for column in columns:
            index.caption_chars[column] = np.full(count, 20, np.uint32)
        buckets = np.arange(count, dtype=np.uint8) % 3
        buckets[6::7] = 255
        sources.append(
            StreamedSource(
                index,
                Painted(index, images, captions),
                CaptionSettings(columns),
                FilterSettings(),
                shared,
            )
        )
        used.append(BucketMembers(buckets, 3))
    order = Order(used, 6, 0)
    return OpenedData(
        sources=tuple(sources),
        shapes=SHAPES,
        used=tuple(used),
        order=order,
        held_out=HeldOut(order, np.zeros(1, np.int64), np.zeros(1, np.uint8), 6),
        contents=Contents(sum(counts), identity),
        identity=identity,
        caption_identity=identity,
        report=(),
    )


def used_records(data):
    """Number across all sources, source, and number in it, of every record that is used."""
    first = 0
    for source, members in enumerate(data.used):
        for own in range(len(members)):
            if members.bucket(own) < len(data.shapes):
                yield first + own, source, own
        first += len(members)


def files(folder):
    """The content of all files below a folder, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
