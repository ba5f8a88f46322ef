"""Prompts of a user's file: lines of text, or JSON lines, and the listing for other scorers."""

import json

import pytest

from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites.own_prompts import LISTING, OwnPrompts
from lidit_jax.evaluation.suites.prompt_files import prompts_of

SUITE = OwnPrompts()


def test_lines_of_text_are_prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a red circle\n二つの星 \n\n", encoding="utf-8")
    items = prompts_of(SUITE, file)
    assert [item.prompt for item in items] == ["a red circle", "二つの星"]
    assert [picture.file for picture in SUITE.pictures(items[1], 2)] == [
        "00001/0000.png",
        "00001/0001.png",
    ]


def test_the_listing_keeps_the_records_of_the_file(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a cat", "id": 7}\n{"prompt": "a cat"}\n')
    items = prompts_of(SUITE, file)
    rows = [json.loads(line) for line in SUITE.text_files(items, 2)[LISTING].splitlines()]
    assert len(rows) == 4
    assert rows[1] == {
        "file": "00000/0001.png",
        "line": 0,
        "sample": 1,
        "prompt": "a cat",
        "record": {"prompt": "a cat", "id": 7},
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds no prompt"),
        ("a.txt", b"a\n\nb", "line 2 is empty"),
        ("a.txt", b"\xff\xfe", "not UTF-8 text"),
        ("a.jsonl", b'{"prompt": ""}', "line 1 has no 'prompt'"),
        ("a.jsonl", b'["a"]', "line 1 is not a JSON object"),
        ("a.jsonl", b'{"prompt": "a', "line 1 is not complete JSON"),
        ("a.jsonl", b'{"prompt": "\\ud800"}', "contains half of a character"),
    ],
)
def test_files_that_hold_no_prompts_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LiditError, match=message):
        prompts_of(SUITE, tmp_path / name)


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(LiditError, match=r"cannot read .*none.txt"):
        prompts_of(SUITE, tmp_path / "none.txt")
