"""ArrayRecord files of our own and of others."""

import subprocess
import sys

import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from lidit_jax.data.sources import record_files
from lidit_jax.data.sources.array_record import ArrayRecords, write_records
from lidit_jax.data.sources.examples import write_example
from lidit_jax.data.sources.protocol import Place
from lidit_jax.errors import LiditError


@pytest.fixture
def write(tmp_path):
    """`write(contents)`: a file of these records, by `array_record` itself; gives its path."""

    def write(contents, name="a.array_record", options="group_size:1"):
        path = str(tmp_path / name)
        writer = ArrayRecordWriter(path, options)
        for content in contents:
            writer.write(content)
        writer.close()
        return path

    return write


def test_what_is_written_here_is_read(picture, tmp_path, same_when_read, scanned):
    records = [
        (f"key {i}", picture((i, 0, 0)), {"caption": f"text {i}", "short": "猫"}, {"score": i / 2})
        for i in range(300)
    ]
    assert write_records(tmp_path / "a.array_record", records) == 300
    rows = same_when_read(ArrayRecords(str(tmp_path)))
    assert [(key, captions, numbers) for _, key, captions, numbers, _ in rows] == [
        (key, captions, numbers) for key, _, captions, numbers in records
    ]
    images = [image for _, _, image in scanned(ArrayRecords(str(tmp_path / "a.array_record")))]
    assert images == [image for _, image, _, _ in records]
    first = (tmp_path / "a.array_record").read_bytes()
    write_records(tmp_path / "a.array_record", records)
    assert (tmp_path / "a.array_record").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["a.array_record"], "nothing is left"


def test_a_column_of_a_taken_name_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(LiditError, match="the column 'image' must be called otherwise"):
        write_records(tmp_path / "a.array_record", [("k", b"1", {"image": "a cat"}, {})])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", ["group_size:1", "group_size:7,zstd:3", ""])
def test_examples_of_others_are_read(options, write, picture, same_when_read):
    examples = [
        {
            "image/encoded": [picture((i, 0, 0))],
            "image/height": [12],
            "mask": [picture()],
            "bounds": [0.1, 0.2],
            "text": [b"one", "zw\u00f6lf".encode()],
            "score": [0.5],
        }
        for i in range(20)
    ]
    path = write(map(write_example, examples), "x.array_record-00000-of-00001", options)
    rows = same_when_read(ArrayRecords(path.rpartition("/")[0]))
    assert rows[3] == (
        "x.array_record-00000-of-00001",
        "x.array_record-00000-of-00001/3",
        {"text_0": "one", "text_1": "zwölf"},
        {"image/height": 12.0, "score": 0.5},
        "",
    )


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_buckets(scheme, picture, tmp_path, copy, same_when_read, monkeypatch):
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    records = [(f"{i}", picture((i, 0, 0)), {"caption": "a"}, {}) for i in range(5)]
    write_records(folder / "a.array_record", records)
    url = copy(folder, scheme)
    assert same_when_read(ArrayRecords(url)) == same_when_read(ArrayRecords(str(folder)))
    copies = list((tmp_path / "cache").rglob("*.array_record"))
    assert len(copies) == (scheme == "s3"), "Google's are read where they lie"


@pytest.mark.parametrize("content", [b"", b"no records", b"\x0a\xff\xff", b"\x00" * 50])
def test_records_that_are_no_examples_are_refused(content, write, scanned):
    with pytest.raises(LiditError, match=r"a\.array_record, record 0 is no tf\.train\.Example"):
        scanned(ArrayRecords(write([content])))


def test_examples_without_an_image_are_refused(write, scanned):
    for features in ({"text": [b"a"]}, {"image": [1, 2], "text": [b"a"]}):
        with pytest.raises(LiditError, match=r"record 0 has no feature 'image' or 'image/encoded'"):
            scanned(ArrayRecords(write([write_example(features)])))


def test_an_empty_image_is_a_problem(write, same_when_read):
    ((*_, problem),) = same_when_read(
        ArrayRecords(write([write_example({"image": [b""], "text": [b"a"]})]))
    )
    assert problem.endswith("record 0 has an empty image: remove it")


def test_damaged_files_are_named(write, picture, tmp_path, scanned):
    example = write_example({"image": [picture()], "text": [b"a"]})
    path = write([example] * 9, options="group_size:1,uncompressed")
    whole = (tmp_path / "a.array_record").read_bytes()
    place = whole.index(example)
    turned = whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
    for content in (b"", whole[:100], whole[:-10], whole[:70_000], b"x" * 131_072, turned):
        (tmp_path / "a.array_record").write_bytes(content)
        with pytest.raises(LiditError, match=r"a\.array_record is no ArrayRecord file, or is cut"):
            scanned(ArrayRecords(path))


def test_a_record_that_is_no_longer_there_is_named(write, tmp_path):
    write_records(tmp_path / "a.array_record", [("k", b"1", {"caption": "a cat"}, {})])
    source = ArrayRecords(str(tmp_path))
    with pytest.raises(LiditError, match="has no record 1: index it again"):
        source.read(Place("a.array_record", "k", 1, 0))
    with pytest.raises(LiditError, match="no longer holds other as it was indexed"):
        source.read(Place("a.array_record", "other", 0, 0))
    write_records(tmp_path / "a.array_record", [("l", b"22", {"caption": "a dog"}, {})])
    with pytest.raises(LiditError, match="no longer holds k as it was indexed"):
        ArrayRecords(str(tmp_path)).read(Place("a.array_record", "k", 0, 0))


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(size, tmp_path):
    """As on a full disk; small records fail only when the file is closed."""
    file = tmp_path / "a.array_record"
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from lidit_jax.data.sources.record_files import write_record_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_record_file(Path(sys.argv[1]), [bytes(int(sys.argv[2]))] * 200)\n"
    )
    line = [sys.executable, "-c", program, str(file), str(size)]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    last = ended.stderr.splitlines()[-1]
    assert f"LiditError: cannot write {file} (write() failed: File too large): make" in last
    assert [*tmp_path.iterdir()] == []


def test_one_record_is_in_a_group(tmp_path):
    write_records(tmp_path / "a.array_record", [("k", b"1", {"caption": "a cat"}, {})])
    options = ArrayRecordReader(str(tmp_path / "a.array_record")).writer_options_string()
    assert "group_size:1," in options


def test_without_array_record_the_package_is_named(monkeypatch):
    monkeypatch.setattr(record_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LiditError, match=r"pip install array_record"):
        ArrayRecords("photos")
