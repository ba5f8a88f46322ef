"""Parsing of JSON that other programs wrote; what is damaged is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lidit_jax.errors import LiditError


def parse_object(text: str, where: str) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
      text: the JSON.
      where: where it is from, for the message.

    Raises:
      LiditError: when it is cut off, not JSON, or not an object.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise LiditError(f"{where} is not complete JSON (cut off?): write it again") from error
    if not isinstance(value, dict):
        raise LiditError(f"{where} is not a JSON object: write it again")
    return value


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
      LiditError: when it does not exist, is cut off, or is not JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise LiditError(f"{file} is not complete JSON (cut off?): write it again") from error
    except OSError as error:
        raise LiditError(f"cannot read {file} ({error.strerror or error})") from error
