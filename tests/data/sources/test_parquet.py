"""Parquet as `datasets`, pyarrow and others write it."""

import io

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.table import embed_table_storage

from lidit_jax.data.record_reading import read_captions
from lidit_jax.data.sources import parquet
from lidit_jax.data.sources.parquet import Parquet
from lidit_jax.data.sources.protocol import Place, Record
from lidit_jax.errors import LiditError
from lidit_jax.io.files import Files
from tests import fake_hub

datasets.disable_progress_bars()


@pytest.fixture
def hf_dataset(picture):
    """Seven records of `datasets` with every kind of column."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "others": datasets.List(datasets.Value("string")),
            "score": datasets.Value("float32"),
            "label": datasets.ClassLabel(names=["cat", "big_dog"]),
        }
    )
    columns = {
        "image": [{"bytes": picture((20 * i, 0, 0)), "path": f"{i}.png"} for i in range(7)],
        "text": [f"text {i}" for i in range(7)],
        "others": [[f"other {i}", "more"] for i in range(6)] + [[]],
        "score": [i / 2 for i in range(7)],
        "label": [i % 2 for i in range(7)],
    }
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture
def write(tmp_path):
    """`write(columns)`: a file of these columns, by pyarrow; gives its path."""

    def write(columns, name="a.parquet", **options):
        path = tmp_path / name
        pq.write_table(pa.table(columns), path, **options)
        return str(path)

    return write


def test_what_datasets_writes_is_read(hf_dataset, picture, tmp_path, scanned, same_when_read):
    hf_dataset.to_parquet(tmp_path / "train-00000-of-00001.parquet", batch_size=3)
    source = Parquet(str(tmp_path))
    rows = same_when_read(source)
    assert len(rows) == 7
    assert rows[3] == (
        "train-00000-of-00001.parquet",
        "train-00000-of-00001.parquet/3",
        {"text": "text 3", "others_0": "other 3", "others_1": "more"},
        {"score": 1.5, "label": 1.0},
        "",
    )
    assert rows[6][2] == {"text": "text 6"}
    assert [image for _, _, image in scanned(source)] == [picture((20 * i, 0, 0)) for i in range(7)]
    assert [record.offset for _, record, _ in scanned(source)] == [0, 0, 0, 1, 1, 1, 2]


def test_class_labels_are_captions_where_there_are_no_texts(hf_dataset, tmp_path, same_when_read):
    labels = hf_dataset.select_columns(["image", "label"])
    labels.to_parquet(tmp_path / "a.parquet")
    rows = same_when_read(Parquet(str(tmp_path / "a.parquet")))
    assert [row[2] for row in rows[:2]] == [
        {"label": "a photo of cat"},
        {"label": "a photo of big dog"},
    ]


def test_bytes_without_metadata_are_read(write, picture, same_when_read):
    columns = {
        "n": [1, None],
        "jpeg": [picture(), picture()],
        "caption": pa.array(["a", None]).dictionary_encode(),
        "nested": [{"x": 1}, {"x": 2}],
    }
    rows = same_when_read(Parquet(write(columns)))
    assert [row[2:] for row in rows] == [({"caption": "a"}, {"n": 1.0}, ""), ({}, {}, "")]


def test_of_several_images_the_one_called_image_counts(write, picture, scanned):
    columns = {"mask": [b"m"], "Image": [picture()], "text": ["a"]}
    assert scanned(Parquet(write(columns)))[0][2] == picture()
    with pytest.raises(LiditError, match=r"2 columns of images, 'a', 'b': rename the one to read"):
        scanned(Parquet(write({"a": [b"1"], "b": [b"2"], "text": ["a"]})))


def test_a_row_with_only_a_path_says_how_to_embed_it(picture, tmp_path, scanned):
    (tmp_path / "cat.png").write_bytes(picture())
    paths = datasets.Dataset.from_dict({"image": [str(tmp_path / "cat.png")], "text": ["a cat"]})
    paths = paths.cast_column("image", datasets.Image())
    paths.to_parquet(tmp_path / "paths.parquet")
    source = Parquet(str(tmp_path / "paths.parquet"))
    ((_, record, image),) = scanned(source)
    assert "embed the images before to_parquet: dataset.with_format('arrow')" in record.problem
    assert image == record.problem
    with pytest.raises(LiditError, match="has only the path"):
        source.read(Place("paths.parquet", record.key, 0, 0))
    embedded = paths.with_format("arrow").map(embed_table_storage, batched=True)
    embedded.to_parquet(tmp_path / "paths.parquet")
    assert scanned(Parquet(str(tmp_path / "paths.parquet")))[0][2] == picture()


def test_what_save_to_disk_writes_is_refused_with_the_remedy(hf_dataset, tmp_path):
    hf_dataset.save_to_disk(tmp_path / "one")
    with pytest.raises(LiditError, match=r"load_from_disk\('.*one'\)\.to_parquet\('photos"):
        Parquet(str(tmp_path / "one")).shards()
    datasets.DatasetDict(train=hf_dataset).save_to_disk(tmp_path / "dict")
    with pytest.raises(LiditError, match=r'load_from_disk\(.*\)\["train"\]\.to_parquet'):
        Parquet(str(tmp_path / "dict")).shards()
    datasets.load_from_disk(str(tmp_path / "one")).to_parquet(tmp_path / "photos.parquet")
    assert len(Parquet(str(tmp_path / "photos.parquet")).shards()) == 1


def test_splits_are_not_mixed(write, picture):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        path = write({"image": [picture()], "text": ["a"]}, f"{name}.parquet")
    folder = path.rpartition("/")[0]
    with pytest.raises(LiditError, match=r"holds the splits test, train: name the files of one"):
        Parquet(folder).shards()
    shards = Parquet(f"{folder}/**/train*.parquet").shards()
    assert [s.name for s in shards] == [f"train-0000{i}-of-00002.parquet" for i in (0, 1)]


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_buckets(scheme, hf_dataset, tmp_path, copy, same_when_read):
    hf_dataset.to_parquet(tmp_path / "a.parquet", batch_size=3)
    rows = same_when_read(Parquet(copy(tmp_path, scheme)))
    assert rows == same_when_read(Parquet(str(tmp_path)))


def test_the_hub(hf_dataset, tmp_path, same_when_read):
    hf_dataset.to_parquet(tmp_path / "a.parquet", batch_size=3)
    files = {"data/a.parquet": (tmp_path / "a.parquet").read_bytes(), "README.md": b"# Seven"}
    with fake_hub.serve("somebody/seven", files):
        source = Parquet("hf://datasets/somebody/seven")
        assert repr(source) == "parquet:hf://datasets/somebody/seven"
        rows = same_when_read(source)
        assert [row[2:] for row in rows] == [
            row[2:] for row in same_when_read(Parquet(str(tmp_path)))
        ]
        (shard,) = Parquet("hf://datasets/somebody/seven/data/*.parquet").shards()
        assert shard.version == source.shards()[0].version
        converted = same_when_read(Parquet("hf://datasets/somebody/seven@~parquet"))
        assert converted == rows
        with pytest.raises(LiditError, match=r"run `hf auth login` if it is private or gated"):
            Parquet("hf://datasets/somebody/nothing").shards()


def test_damaged_files_are_named(write, picture, tmp_path, scanned):
    path = write({"image": [picture()] * 50, "text": ["a"] * 50}, compression="none")
    whole = (tmp_path / "a.parquet").read_bytes()
    for content in (whole[:-100], whole[:300], b"", b"PAR1", b"no Parquet at all" * 9):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(LiditError, match=r"a\.parquet is no Parquet file, or is cut off"):
            scanned(Parquet(path))
    (tmp_path / "a.parquet").write_bytes(whole[:4] + b"\xff" * 60 + whole[64:])
    with pytest.raises(LiditError, match=r"a\.parquet is no Parquet file, or is cut off"):
        scanned(Parquet(path))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"1"], "n": [1]}, r"no column of captions, only 'image' \(binary\), 'n' \(int"),
        ({"image": ["1.jpg"], "text": ["a"]}, r"no column of images, only 'image' \(string\)"),
    ],
)
def test_wrong_schemas_are_named(columns, message, write, scanned):
    with pytest.raises(LiditError, match=message):
        scanned(Parquet(write(columns)))


def test_damaged_metadata_of_datasets_is_named(write, tmp_path, scanned):
    table = pa.table({"image": [b"1"], "text": ["a"]}, metadata={"huggingface": "{"})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(LiditError, match="has damaged metadata of datasets: write it anew"):
        scanned(Parquet(str(tmp_path)))


def test_damaged_rows_have_problems(write, picture, same_when_read):
    broken = pa.array([b"\xff\xfe", b"b", b"c"]).view(pa.string())
    columns = {"image": [picture(), None, b""], "text": broken}
    rows = same_when_read(Parquet(write(columns)))
    assert "a text is not UTF-8" in rows[0][4]
    assert [row[4] for row in rows[1:]] == [
        f"a.parquet/{i} has no image: remove the row" for i in (1, 2)
    ]


def test_a_row_group_too_large_for_random_reads_is_refused(write, picture, scanned, monkeypatch):
    path = write({"image": [picture()] * 50, "text": ["a"] * 50})
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 100)
    with pytest.raises(LiditError, match="all of which is read for any record in it: write it"):
        scanned(Parquet(path))


def test_captions_are_read_without_the_pages_of_the_pictures(write, monkeypatch):
    """Of 1 MB of pictures that cannot be compressed, in two row groups."""
    noise = np.random.default_rng(0)
    columns = {"image": [noise.bytes(2**17) for _ in range(8)], "text": [f"{i}" for i in range(8)]}
    path, count = write(columns, row_group_size=4), []

    class Counted(io.FileIO):
        def readinto(self, buffer):
            count.append(super().readinto(buffer))
            return count[-1]

        def read(self, size=-1):
            count.append(len(found := super().read(size)))
            return found

    monkeypatch.setattr(Files, "stream", lambda self, name: Counted(self._path(name)))
    source = Parquet(path)
    places = [Place("a.parquet", f"a.parquet/{i}", i // 4, i % 4) for i in range(8)]
    found = [read_captions(source, place).content for place in places]
    assert found == [Record(b"", {"text": f"{i}"}) for i in range(8)]
    assert sum(count) < 2**16 + 8 * 2**10, "the footer, which is read as 64 kB, and short texts"
    first = source.read(places[0])
    assert (len(first.image), first.captions) == (2**17, {"text": "0"})
    assert sum(count) > 4 * 2**17


def test_a_row_that_is_no_longer_there_is_named(write, picture):
    source = Parquet(write({"image": [picture()], "text": ["a"]}))
    for offset, row in ((1, 0), (0, 1)):
        with pytest.raises(LiditError, match=r"no longer holds a\.parquet/1: index it again"):
            source.read(Place("a.parquet", "a.parquet/1", offset, row))
        with pytest.raises(LiditError, match=r"no longer holds a\.parquet/1: index it again"):
            source.read_captions(Place("a.parquet", "a.parquet/1", offset, row))


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(parquet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LiditError, match=r"needs pyarrow: pip install 'lidit-jax\[parquet\]'"):
        Parquet("photos")
