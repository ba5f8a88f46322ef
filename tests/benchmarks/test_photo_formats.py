"""Photos of the data benchmark in every format hold the same bytes."""

import tarfile

import pyarrow.parquet as pq

from lidit_jax.benchmarks.photo_formats import prepare_photos
from lidit_jax.data.index.open import open_index


def test_every_format_holds_every_photo(tmp_path):
    prepare_photos(tmp_path, 2)
    photos = [(tmp_path / "folder" / f"0000{i}.jpg").read_bytes() for i in range(2)]
    with tarfile.open(tmp_path / "webdataset" / "00000.tar") as tar:
        assert [tar.extractfile(f"0000{i}.jpg").read() for i in range(2)] == photos
    table = pq.read_table(tmp_path / "parquet" / "00000.parquet").to_pylist()
    assert [row["image"]["bytes"] for row in table] == photos
    assert table[1]["caption"].strip() == "photo number 1"
    assert len(open_index(tmp_path / "array_record" / "index")) == 2
