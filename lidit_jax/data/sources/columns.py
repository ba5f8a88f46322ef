"""Classification of a record's fields as captions or numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from lidit_jax.config.prompt_text import prompt_text
from lidit_jax.config.text import broken_characters
from lidit_jax.errors import LiditError

CAPTION_KEYS = ("caption", "text")
"""Fields that always hold captions."""
CAPTION_OBJECT = '{"caption": "TEXT"}'


class Columns(NamedTuple):
    """Captions and numbers of a record."""

    captions: dict[str, str]
    """Every text field, by name."""
    numbers: dict[str, float]
    """Every numeric field; true and false are 1 and 0."""


def json_object(content: bytes, where: str, example: str = CAPTION_OBJECT) -> dict[str, Any]:
    """Parse the JSON object in a line or a file.

    Args:
      content: UTF-8, with or without a byte order mark.
      where: its name in messages.
      example: an example of valid content, for messages.

    Raises:
      LiditError: when it is none.
    """
    try:
        record = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise LiditError(f"{where}: not UTF-8 text: save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise LiditError(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise LiditError(f"{where}: no JSON object: write {example}")
    return record


def columns(record: Mapping[str, Any], where: str) -> Columns:
    """Return a record's captions and numbers, without empty texts and values of other types.

    Raises:
      LiditError: when a text or a name is damaged, or a caption is no text.
    """
    found = Columns({}, {})
    for name, value in record.items():
        if broken_characters(name):
            raise LiditError(f"{where}: the name {name!r} is damaged: write it anew, in UTF-8")
        if isinstance(value, str):
            if prompt_text(where, value):
                found.captions[name] = value
        elif isinstance(value, int | float):
            found.numbers[name] = _number(value)
        elif name in CAPTION_KEYS and value is not None:
            raise LiditError(f'{where}: {name!r} is no text: write {{"{name}": "TEXT"}}')
    return found


def caption_text(content: bytes, where: str) -> str:
    """Return the caption in a text file; empty if the file has none.

    Raises:
      LiditError: when it is not UTF-8.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise LiditError(f"{where} is not UTF-8 text: save it as UTF-8") from error
    return text if prompt_text(where, text) else ""


def _number(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 300 digits
        return float("inf") if value > 0 else float("-inf")
