"""Tars: what the `webdataset` package writes, what others write, and what is damaged."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from lidit_jax.data.sources.protocol import Place
from lidit_jax.data.sources.webdataset import WebDataset
from lidit_jax.errors import LiditError


@pytest.fixture
def tar(tmp_path):
    """`tar("0.tar", {"a.jpg": b"…"})`: a tar in the folder `tars`; gives its path."""

    def tar(name, members, form=tarfile.PAX_FORMAT):
        file = tmp_path / "tars" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file, "w", format=form) as out:
            for member, content in members.items() if isinstance(members, dict) else members:
                info = tarfile.TarInfo(member)
                if isinstance(content, str):
                    info.type, info.linkname = tarfile.SYMTYPE, content
                elif content is None:
                    info.type = tarfile.DIRTYPE
                else:
                    info.size = len(content)
                out.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
        return str(file)

    return tar


def test_what_webdataset_writes(tmp_path, picture, same_when_read, scanned):
    import webdataset

    jpeg = picture(kind="JPEG")
    samples = [
        {
            "__key__": f"photos/{i:06d}",
            "jpg": jpeg,
            "txt": f"number {i}",
            "json": {"caption": f"other {i}", "url": "https://x", "punsafe": 0.25, "width": 16},
            "cls": i,
            "npy": picture(),
        }
        for i in range(7)
    ]
    folder = tmp_path / "written" / "by-webdataset"
    folder.mkdir(parents=True)
    with webdataset.ShardWriter(f"file:{folder}/%06d.tar", maxcount=3, verbose=0) as sink:
        for sample in samples:
            sink.write(sample)
    source = WebDataset(str(folder))
    assert [shard.name for shard in source.shards()] == [f"{i:06d}.tar" for i in range(3)]
    rows = same_when_read(source)
    assert rows[4] == (
        "000001.tar",
        "000001.tar/photos/000004",
        {"caption": "number 4", "json.caption": "other 4", "url": "https://x"},
        {"cls": 4.0, "punsafe": 0.25, "width": 16.0},
        "",
    )
    # The package itself finds the same pictures under the same keys, in the same order.
    theirs = webdataset.WebDataset(
        [f"file:{file}" for file in sorted(folder.iterdir())], shardshuffle=False
    )
    assert [(record.key.partition("/")[2], image) for _, record, image in scanned(source)] == [
        (sample["__key__"], sample["jpg"]) for sample in theirs
    ]


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_shards_keys_and_spans_are_the_same_in_a_bucket(tar, picture, scheme, copy, same_when_read):
    for number in range(2):
        tar(
            f"{number}.tar",
            {"a.png": picture(), "a.txt": b"a", "b.png": picture((1, 2, 3)), "b.txt": b"b"},
        )
    folder = tar("more/2.tar", {"a.png": picture(), "a.txt": b"a"}).removesuffix("/more/2.tar")
    here = WebDataset(folder)
    expected = same_when_read(here)
    assert [row[1] for row in expected] == [
        "0.tar/a",
        "0.tar/b",
        "1.tar/a",
        "1.tar/b",
        "more/2.tar/a",
    ]
    url = copy(Path(folder), scheme)
    there = WebDataset(url)
    assert same_when_read(there) == expected
    assert spans(there) == spans(here)
    assert same_when_read(WebDataset(f"{url}/{{0..1}}.tar")) == expected[:4]
    assert same_when_read(WebDataset(f"{url}/1.tar")) == expected[2:4]
    assert same_when_read(WebDataset(f"{folder}/[01].tar")) == expected[:4]


def spans(source):
    return [(r.offset, r.length) for shard in source.shards() for r in source.scan(shard)]


def test_which_files_make_a_record(tar, picture, same_when_read, scanned):
    png, other = picture(), picture((9, 9, 9))
    rows = same_when_read(
        WebDataset(
            tar(
                "0.tar",
                [
                    ("./", None),
                    ("./dir.v2/", None),
                    ("./dir.v2/a.txt", "\ufeffa cat".encode()),
                    ("./dir.v2/._a.png", b"litter"),
                    ("./dir.v2/a.seg.png", other),
                    ("./dir.v2/a.PNG", png),
                    ("./dir.v2/a.webp", other),
                    ("b.short.txt", b"short"),
                    ("b.caption", b"plain"),
                    ("b.img.png", png),
                    ("b.cls", b"dog"),
                    ("__meta__", b"{}"),
                    ("__MACOSX/b.png", b"litter"),
                    ("README", b"no dot"),
                    ("c.jpg", other),
                    ("c.png", other),
                    ("c.json", json.dumps({"text": "c", "tags": ["x"], "ok": True}).encode()),
                ],
            )
        )
    )
    assert [row[1:] for row in rows] == [
        ("0.tar/dir.v2/a", {"caption": "\ufeffa cat"}, {}, ""),
        ("0.tar/b", {"caption": "plain", "short": "short"}, {}, ""),
        ("0.tar/c", {"text": "c"}, {"ok": 1.0}, ""),
    ]
    images = [
        image for _, _, image in scanned(WebDataset(tar("1.tar", {"c.png": png, "c.txt": b"c"})))
    ]
    assert images == [png]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(tar, picture, form, same_when_read):
    names = ["x" * 300, "d/" * 120 + "猫 😀", "plain"]
    members = {}
    for name in names:
        members |= {f"{name}.png": picture(), f"{name}.txt": b"text"}
    rows = same_when_read(WebDataset(tar("long.tar", members, form)))
    assert [row[1] for row in rows] == [f"long.tar/{name}" for name in names]
    assert not any(row[4] for row in rows)


def test_records_that_cannot_be_used_are_problems(tar, picture, scanned):
    png = picture()
    path = tar(
        "bad.tar",
        [
            ("../up.png", png),
            ("../up.txt", b"up"),
            ("/etc/root.png", png),
            ("/etc/root.txt", b"root"),
            ("alone.txt", b"no picture"),
            ("silent.png", png),
            ("empty.png", png),
            ("empty.txt", b" \r\n"),
            ("latin.png", png),
            ("latin.txt", b"\xe9"),
            ("json.png", png),
            ("json.json", b"{'a': 1}"),
            ("json.txt", b"text"),
            ("list.png", png),
            ("list.json", b"[1]"),
            ("link.png", "silent.png"),
            ("link.txt", b"link"),
            ("two.a.png", png),
            ("two.b.png", png),
            ("two.txt", b"two"),
            ("twice.png", png),
            ("twice.PNG", png),
            ("twice.txt", b"twice"),
            ("half.png", png),
            ("half.json", b'{"caption": "\\ud83d"}'),
            ("\udcff.png", png),
            ("\udcff.txt", b"name"),
            ("again.png", png),
            ("again.txt", b"first"),
            ("good.png", png),
            ("good.txt", b"good"),
            ("again.png", png),
            ("again.txt", b"second"),
        ],
        tarfile.GNU_FORMAT,
    )
    rows = {
        record.key.removeprefix("bad.tar/"): record for _, record, _ in scanned(WebDataset(path))
    }
    for key, expected in {
        "../up": "lies outside of the tar's folder",
        "/etc/root": "lies outside of the tar's folder",
        "alone": "has no image: write one with it, as jpg or png (it has txt)",
        "silent": "has no caption: write one with it, as txt or in json (it has png)",
        "empty": "has no caption",
        "latin": "its txt is not UTF-8 text",
        "json": "its json: not JSON",
        "list": "its json: no JSON object",
        "link": "its png is a link or a sparse file: write the tar with --hard-dereference",
        "two": "has several images: call the one to use jpg (a.png, b.png)",
        "twice": "has two files png",
        "half": "half of a character",
        "\\udcff": "a name that is not UTF-8",
        "again": "",
        "good": "",
        "again:2": "is there 2 times, apart",
    }.items():
        problem = rows.pop(key).problem
        assert (expected in problem) if expected else not problem, (key, problem)
    assert rows == {}


def whole(tar, picture):
    return tar("0.tar", {"a.png": picture(), "a.txt": b"a", "b.png": picture(), "b.txt": b"b"})


@pytest.mark.parametrize("stop", [1, 300, 512, 700, 1024, 1536, 2100, 3072, 4096, -10240])
def test_a_tar_that_is_cut_off_is_told_wherever_it_ends(tar, picture, stop, scanned):
    path = whole(tar, picture)
    with open(path, "rb") as file:
        content = file.read()
    if stop < 0:  # where its end marks begin
        stop = len(content.rstrip(b"\0")) // 512 * 512 + 512
    with open(path, "wb") as file:
        file.write(content[:stop])
    with pytest.raises(LiditError, match=r"0.tar is (no tar|damaged).*cut off"):
        scanned(WebDataset(path))


def test_what_is_no_tar_or_more_than_one(tar, picture, tmp_path, scanned):
    path = whole(tar, picture)
    with open(path, "rb") as file:
        content = file.read()
    damaged = bytearray(content)
    damaged[1024:1030] = b"\xff" * 6  # the second header
    for bad, expected in (
        (content + content, "two tars in one"),
        (bytes(damaged), "is damaged"),
        (b"", "is no tar, or is cut off"),
        (b"<html>" * 1000, "is no tar"),
        (gzip.compress(content), "is compressed: decompress it"),
    ):
        with open(path, "wb") as file:
            file.write(bad)
        with pytest.raises(LiditError, match=f"0.tar {expected}|{expected}"):
            scanned(WebDataset(path))
    assert scanned(WebDataset(tar("empty.tar", {}))) == [], "a tar without members is whole"


def test_a_size_that_leads_back_ends_the_scan(tar, picture, scanned):
    path = whole(tar, picture)
    info = tarfile.TarInfo("c.png")
    info.size = -2048
    with open(path, "r+b") as file:
        file.seek(2048)  # the third header
        file.write(info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(LiditError, match=r"0.tar is (damaged|no tar).*"):
        scanned(WebDataset(path))


def test_compressed_tars_are_refused_by_name(tar, picture, tmp_path):
    folder = whole(tar, picture).rpartition("/")[0]
    for name in ("1.tar.gz", "1.tgz", "{0..9}.tar.zst"):
        with pytest.raises(LiditError, match=r"is compressed, so that .* decompress it"):
            WebDataset(f"{folder}/{name}")
    (tmp_path / "tars" / "1.tar.gz").touch()
    with pytest.raises(LiditError, match=r"1\.tar\.gz is compressed"):
        WebDataset(folder).shards()


def test_a_record_that_has_gone_is_told(tar, picture, tmp_path):
    source = WebDataset(whole(tar, picture))
    (shard,) = source.shards()
    first, second = source.scan(shard)
    for record, offset, length in (
        (first, second.offset, second.length),
        (first, first.offset + 512, first.length),
        (second, second.offset, second.length - 1024),
        (second, 10**9, second.length),
    ):
        with pytest.raises(LiditError, match=f"no longer holds {record.key} as it was indexed"):
            source.read(Place(shard.name, record.key, offset, length))
    (tmp_path / "tars" / "0.tar").unlink()
    with pytest.raises(LiditError, match=r"0\.tar does not exist"):
        source.read(Place(shard.name, first.key, first.offset, first.length))


def test_files_that_are_no_tars_are_counted(tar, picture, tmp_path):
    source = WebDataset(whole(tar, picture).rpartition("/")[0])
    (tmp_path / "tars" / "0_stats.json").touch()
    (tmp_path / "tars" / "0.parquet").touch()
    assert source.left_out() == "1 .json (0_stats.json), 1 .parquet (0.parquet)"
