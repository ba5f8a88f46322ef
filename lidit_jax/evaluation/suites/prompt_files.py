"""Reading of the files that hold a suite's prompts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lidit_jax.config.prompt_text import prompt_text
from lidit_jax.config.text import split_lines
from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites.json_text import parse_object
from lidit_jax.evaluation.suites.suite import Item, Suite

FOLDERS = "LIDIT_BENCHMARKS"
"""Environment variable with the folder that holds the official prompts of all suites."""


def prompts_of(suite: Suite, source: Path | None) -> list[Item]:
    """Read the prompts of a suite, with unique keys.

    Args:
      suite: the suite.
      source: folder or file of its prompts; None for its folder in `$LIDIT_BENCHMARKS`.

    Raises:
      LiditError: when there is no such folder, or its files are not those of the suite.
    """
    if source is None:
        if not os.environ.get(FOLDERS):
            raise LiditError(
                f"--benchmark is missing: name the folder of the official prompts of "
                f"{suite.title}, or set {FOLDERS} to a folder that holds it as {suite.folder}/"
            )
        source = Path(os.path.expanduser(os.environ[FOLDERS])) / suite.folder
    items = suite.items(source)
    if not items:
        raise LiditError(f"{source} holds no prompt")
    repeated = [key for key, times in Counter(item.key for item in items).items() if times > 1]
    if repeated:
        raise LiditError(
            f"{source}: {len(repeated)} names occur more than once, first {repeated[0]!r}"
        )
    return items


def find_file(folder: Path, *names: str) -> Path:
    """Return the first of some files that exists in a folder.

    Raises:
      LiditError: when none exists.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise LiditError(
        f"{folder} holds no {names[0]}: name the folder of the official prompts with --benchmark"
    )


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file without an empty end.

    Raises:
      LiditError: when it cannot be read, is not UTF-8, or has an empty line before the end.
    """
    try:
        lines = split_lines(file.read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise LiditError(f"cannot read {file} ({reason})") from error
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise LiditError(f"{file}: line {number} is empty: write one prompt per line")
    return lines


def read_records(file: Path, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines, each with some texts.

    Args:
      file: the file.
      fields: keys that each object must have, with a text that is not empty.

    Raises:
      LiditError: when it cannot be read, or a line is not such an object.
    """
    records = []
    for number, line in enumerate(read_lines(file), 1):
        record = parse_object(line, f"{file}: line {number}")
        for field in fields:
            if not isinstance(record.get(field), str) or not record[field].strip():
                raise LiditError(f"{file}: line {number} has no {field!r}")
        records.append(record)
    return records


def checked_prompt(where: str, prompt: str) -> str:
    """Return a prompt as the official file has it. Raises `LiditError` for damaged text."""
    prompt_text(where, prompt)
    return prompt
