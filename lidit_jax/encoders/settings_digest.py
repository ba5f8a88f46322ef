"""Digest of what an encoder's settings files mean, beside that of its weights and tokenizer."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any


def settings_digest(*settings: Any) -> str:
    """Return a digest of numbers, texts, tuples and dataclasses.

    Fields with their default value are left out, so that a later version, which adds a field,
    gives the same digest.
    """
    text = json.dumps([_described(value) for value in settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _described(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_described(one) for one in value]
    if not dataclasses.is_dataclass(value):
        return value
    kept = {
        field.name: _described(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != field.default
    }
    return {type(value).__name__: kept}
