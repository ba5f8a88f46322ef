"""Where sources lie: on this machine, and as copies in stand-ins for buckets."""

import io
import os
import pickle
from pathlib import Path

import pytest
from PIL import Image

from lidit_jax.data.sources.protocol import CaptionSource, Place
from lidit_jax.errors import LiditError
from tests.stores import gcs_store, s3_store


@pytest.fixture(scope="module")
def buckets():
    """Both stores, for as long as the tests of a file go on."""
    with gcs_store() as gcs, s3_store() as s3:
        yield {"gs": gcs, "s3": s3}


@pytest.fixture
def copy(buckets):
    """`copy(folder, "gs")`: the URL of a folder's copy in a bucket; links are followed."""

    def copy(folder: Path, scheme: str) -> str:
        name = "/".join(folder.parts[-2:])
        for parent, _, files in os.walk(folder, followlinks=True):
            for file in files:
                path = Path(parent, file)
                key = f"{name}/{path.relative_to(folder).as_posix()}"
                if scheme == "gs":
                    buckets["gs"].buckets["bucket"][key] = (len(key), path.read_bytes())
                else:
                    buckets["s3"].put_object(Bucket="bucket", Key=key, Body=path.read_bytes())
        return f"{scheme}://bucket/{name}"

    return copy


@pytest.fixture
def picture():
    """`picture(red)`: the bytes of a small PNG of one color, or of another format."""

    def picture(color=(220, 30, 30), kind="PNG"):
        stream = io.BytesIO()
        Image.new("RGB", (16, 12), color).save(stream, kind)
        return stream.getvalue()

    return picture


@pytest.fixture
def scanned():
    """`scanned(source)`: all that a scan tells, with each image's bytes, or why there are none."""

    def scanned(source):
        source = pickle.loads(pickle.dumps(source))
        rows = []
        for shard in source.shards():
            for record in source.scan(shard):
                try:
                    with record.open_image() as stream:
                        image = stream.read()
                except LiditError as error:
                    image = str(error)
                rows.append((shard.name, record, image))
        return rows

    return scanned


@pytest.fixture
def same_when_read(scanned):
    """Reads every record that has no problem by its place, as the scan has seen it."""

    def check(source):
        rows = scanned(source)
        again = pickle.loads(pickle.dumps(source))
        for shard, record, image in reversed(rows):
            if not record.problem:
                place = Place(shard, record.key, record.offset, record.length)
                read = again.read(place)
                assert (read.image, read.captions) == (image, record.captions)
                if isinstance(again, CaptionSource):
                    assert again.read_captions(place) == record.captions
        return [
            (shard, record.key, record.captions, record.numbers, record.problem)
            for shard, record, _ in rows
        ]

    return check
