"""Listings of captions: lines of JSON and rows of CSV, by their bytes; mistakes name the line."""

import csv
import io
import json

import pytest

from lidit_jax.data.sources import caption_listings
from lidit_jax.data.sources.folder import Folder
from lidit_jax.data.sources.protocol import Place
from lidit_jax.errors import LiditError


@pytest.fixture
def folder(tmp_path, picture):
    """Three pictures, and one beside the folder."""
    folder = tmp_path / "listed"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.png", "c.png", "../outside.png"):
        (folder / name).write_bytes(picture())
    return folder


def write(folder, content, name="captions.jsonl"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return Folder(str(folder))


def lines(*records):
    return "\n".join(json.dumps(record) for record in records)


def table(*rows, **options):
    stream = io.StringIO(newline="")
    csv.writer(stream, **options).writerows(rows)
    return stream.getvalue()


def test_every_text_is_a_column_and_every_number_a_number(folder, same_when_read):
    source = write(
        folder,
        lines(
            {
                "file": "a.png",
                "caption": "red",
                "long": "a\u2028b",
                "score": 5,
                "nsfw": False,
            },
            {"file": "more/b.png", "caption": "b", "long": " ", "tags": ["x"], "p": 10**400},
            {"file_name": "c.png", "text": "猫", "caption": None},
        ),
    )
    assert [row[1:] for row in same_when_read(source)] == [
        ("a.png", {"caption": "red", "long": "a\u2028b"}, {"score": 5.0, "nsfw": 0.0}, ""),
        ("more/b.png", {"caption": "b"}, {"p": float("inf")}, ""),
        ("c.png", {"text": "猫"}, {}, ""),
    ]
    assert source.left_out() == ""


def test_a_table_of_csv(folder, same_when_read):
    rows = [
        ["file_name", "text", "long", "score", ""],
        ["a.png", "1984", 'a "red", one\nof two lines', "0.5", "7"],
        ["more/b.png", "b", "", "-1e-3", "8"],
    ]
    expected = [
        ("a.png", {"text": "1984", "long": rows[1][2]}, {"score": 0.5}, ""),
        ("more/b.png", {"text": "b"}, {"score": -0.001}, ""),
    ]
    for content in (
        table(*rows),
        "\ufeff" + table(*rows, lineterminator="\n"),
        table(*rows, quoting=csv.QUOTE_ALL),
    ):
        source = write(folder, content, "metadata.csv")
        assert [row[1:] for row in same_when_read(source)] == expected
    assert source.left_out() == "1 .png (c.png)"


@pytest.mark.parametrize("name", ["captions.jsonl", "captions.csv"])
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_parts_of_a_listing_are_the_same_in_a_bucket(
    folder, name, scheme, copy, same_when_read, monkeypatch
):
    monkeypatch.setattr(caption_listings, "CHUNK", 3)
    names = ["a.png", "more/b.png", "a.png", "c.png", "a.png", "more/b.png", "c.png"]
    records = [(n, f"number\r\n{i}, ü" if "csv" in name else f"{i}") for i, n in enumerate(names)]
    content = (
        table(("file", "caption"), *records)
        if "csv" in name
        else "\r\n \r\n".join(json.dumps({"file": n, "caption": c}) for n, c in records)
    )
    here = write(folder, content, name)
    rows = same_when_read(here)
    assert len({shard for shard, *_ in rows}) == 3
    assert [captions["caption"] for _, _, captions, _, _ in rows] == [c for _, c in records]
    assert len({key for _, key, *_ in rows}) == len(rows)
    assert rows == same_when_read(Folder(copy(folder, scheme)))


def test_lines_of_one_picture_have_keys_of_their_own(folder, same_when_read):
    source = write(
        folder,
        lines(
            {"file": "a.png", "caption": "one"},
            {"file": "c.png", "caption": "other"},
            {"file": "./a.png", "caption": "two"},
        ),
    )
    assert [key for _, key, *_ in same_when_read(source)] == ["a.png:1", "c.png", "a.png:3"]


def test_the_version_of_a_part_is_that_of_its_pictures_too(folder, picture, monkeypatch):
    monkeypatch.setattr(caption_listings, "CHUNK", 1)
    content = lines({"file": "a.png", "caption": "a"}, {"file": "c.png", "caption": "c"})
    before = write(folder, content).shards()
    (folder / "c.png").write_bytes(picture((1, 2, 3)) + b"longer")
    after = Folder(str(folder)).shards()
    assert [new.version == old.version for new, old in zip(after, before, strict=True)] == [
        True,
        False,
    ]
    assert [s.name for s in after] == [s.name for s in before]


HOSTILE = {
    '{"file": "../outside.png", "caption": "a"}': "'../outside.png' is not inside of",
    '{"file": "more/../../outside.png", "caption": "a"}': "is not inside of",
    '{"file": "/etc/a.png", "caption": "a"}': "is not inside of",
    '{"file": "a\\ud83d.png", "caption": "a"}': "is damaged",
    '{"file": "a.png", "caption": "cat \\ud83d"}': "contains half of a character",
    '{"file": "a.png", "caption": ["red"]}': "'caption' is no text",
    '{"file": "a.png", "caption": "\\ufeff"}': "a.png has no caption",
    '{"file": "", "caption": "a"}': 'write {"file"',
    '{"file": "a.png"': "not JSON",
    '["a.png", "red"]': 'no JSON object: write {"file"',
    '{"file": "a.png", "caption": ' + "[" * 100_000: "not JSON",
    b'{"file": "a.png", "caption": "\xe9"}': "not UTF-8",
}


@pytest.mark.parametrize("line", HOSTILE, ids=HOSTILE.values())
def test_a_line_that_cannot_be_used_is_a_problem_that_names_it(folder, line, scanned):
    content = line if isinstance(line, bytes) else line.encode()
    good = lines({"file": "c.png", "caption": "good"}).encode()
    rows = scanned(write(folder, b"\xef\xbb\xbf" + good + b"\n" + content + b"\r\n" + good))
    assert [bool(record.problem) for _, record, _ in rows] == [False, True, False]
    _, record, image = rows[1]
    assert "captions.jsonl, line 2" in record.problem
    assert HOSTILE[line] in record.problem
    assert record.key.startswith(("captions.jsonl:2", "a.png"))
    assert image == record.problem or isinstance(image, bytes)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.png", "gone.png does not exist"),
        ("a\\u0000.png", "cannot be read"),
        ("more", "is not a file"),
    ],
)
def test_a_picture_that_cannot_be_opened_is_told_when_it_is(folder, name, reason, scanned):
    source = write(folder, f'{{"file": "{name}", "caption": "a"}}')
    ((_, record, image),) = scanned(source)
    assert not record.problem
    assert reason in image


CSV_MISTAKES = {
    "two columns of three": ("c.png,good\r\na.png,red,one", "3 fields, and the first line names 2"),
    "text after a mark": ('c.png,good\r\na.png,"red" one', "not CSV"),
    "a mark in a text": ('c.png,good\r\na.png,6" tall\r\nb.png,7" tall', "not CSV"),
}


@pytest.mark.parametrize("case", CSV_MISTAKES)
def test_a_row_that_is_none_is_a_problem(folder, case, scanned):
    content, expected = CSV_MISTAKES[case]
    rows = scanned(write(folder, f"file,caption\r\n{content}", "captions.csv"))
    assert [bool(record.problem) for _, record, _ in rows] == [False, True]
    assert expected in rows[1][1].problem
    assert "captions.csv, line 3" in rows[1][1].problem


def test_listings_without_records(folder):
    for name, content, expected in (
        ("captions.jsonl", " \n", r"captions.jsonl is empty: write \{"),
        ("captions.csv", "file,caption\n", "captions.csv is empty"),
        ("captions.csv", "", "its first line names no column 'file_name'"),
        ("captions.csv", "name;text\nred;b\n", "names no column 'file_name'"),
        ("captions.csv", "file,text,text\na.png,b,c\n", "or one twice"),
    ):
        with pytest.raises(LiditError, match=expected):
            write(folder, content, name).shards()
        (folder / name).unlink()


def test_a_listing_that_has_changed_is_told(folder):
    source = write(folder, lines({"file": "a.png", "caption": "red"}))
    (shard,) = source.shards()
    (record,) = source.scan(shard)
    write(folder, "# " + lines({"file": "a.png", "caption": "red"}))
    with pytest.raises(LiditError, match=r"has changed since it was indexed, a.png .* index it"):
        source.read(Place(shard.name, record.key, record.offset, record.length))
