"""All errors of a folder are told in one line."""

from pathlib import Path

import pytest

from lidit_jax.data.file_errors import FileErrors
from lidit_jax.errors import LiditError

FOLDER = Path("pictures")


def told(count):
    errors = FileErrors(FOLDER)
    for number in range(count):
        with errors.collect():
            raise LiditError(f"{FOLDER / str(number)}.png has no caption: write one")
    with pytest.raises(LiditError) as error:
        errors.raise_all()
    return str(error.value)


def test_none_one_and_many():
    FileErrors(FOLDER).raise_all()
    assert told(1) == "pictures/0.png has no caption: write one"
    assert told(2) == (
        "2 problems in pictures: 0.png has no caption: write one; 1.png has no caption: write one"
    )
    assert told(10).endswith("; 9.png has no caption: write one")
    assert told(12).startswith("12 problems in pictures: 0.png ")
    assert told(12).endswith("; 9.png has no caption: write one; and 2 more")


def test_only_mistakes_of_the_user_are_gathered():
    with pytest.raises(ValueError, match="ours"), FileErrors(FOLDER).collect():
        raise ValueError("ours")
