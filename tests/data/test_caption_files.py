"""Captions of a folder: what counts as a line, as a record and as inside."""

import json

import pytest
from lidit_jax.data.caption_files import read_caption
from lidit_jax.data.folder import FolderSource
from PIL import Image

from lidit_jax.errors import LiditError


@pytest.fixture
def folder(tmp_path):
    """A folder with one picture, and another picture beside the folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for file in (tmp_path / "outside.png", folder / "a.png"):
        Image.new("RGB", (16, 16)).save(file)
    return folder


def captions(folder, content, name="captions.jsonl"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    source = FolderSource(folder, size=8)
    return [source.caption(i) for i in range(len(source))]


def test_a_line_separator_inside_of_a_caption_is_a_space(folder):
    assert captions(folder, '{"file": "a.png", "caption": "two\u2028lines"}\n') == ["two lines"]


def test_byte_order_marks_and_windows_line_ends_are_no_part_of_records(folder):
    line = '\ufeff{"file": "a.png", "caption": "\\ufeffred"}\r\n'
    assert captions(folder, line + line) == ["red", "red"]


@pytest.mark.parametrize("name", ["metadata.jsonl", "captions.jsonl"])
def test_records_of_hugging_face_are_read(folder, name):
    line = '{"file_name": "a.png", "text": "six patches"}\n'
    assert captions(folder, line, name) == ["six patches"]


def test_captions_jsonl_is_read_where_there_are_both(folder):
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "other"}')
    assert captions(folder, '{"file": "a.png", "caption": "red"}') == ["red"]


def test_a_text_file_is_cleaned_as_a_prompt_is(folder):
    (folder / "a.txt").write_bytes("\ufeffcafe\u0301\r\n at\u2028night\x00".encode())
    assert read_caption(folder / "a.txt", "a.png") == "café at night"


REFUSED = {
    "half a character": ('"a.png", "caption": "a cat \\ud83d"', "half of a character"),
    "absolute": ('"/nowhere/a.png", "caption": "a"', "'/nowhere/a.png' is not inside of"),
    "outside": ('"../outside.png", "caption": "a"', "'../outside.png' is not inside of"),
    "there and back": ('"../pictures/a.png", "caption": "a"', "is not inside of"),
    "an endless name": (f'"{"a" * 5000}", "caption": "a"', "does not exist"),
    "a name that is none": ('"a\\u0000\\ud83d.png", "caption": "a"', "does not exist"),
    "no text": ('"a.png", "caption": ["red"]', 'write {"file"'),
    "endless nesting": (f'"a.png", "caption": {"[" * 100_000}', "not JSON"),
    "only a mark": ('"a.png", "caption": "\\ufeff"', 'write {"file"'),
}


@pytest.mark.parametrize(("rest", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_a_record_that_cannot_be_used_is_refused_by_file_and_line(folder, rest, expected):
    good = json.dumps({"file": "a.png", "caption": "red"})
    with pytest.raises(LiditError) as error:
        captions(folder, f'{good}\n{{"file": {rest}}}\n')
    assert "captions.jsonl, line 2" in str(error.value)
    assert expected in str(error.value)


def test_a_link_inside_of_the_folder_may_lead_out_of_it(folder):
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    assert captions(folder, '{"file": "link.png", "caption": "linked"}') == ["linked"]
