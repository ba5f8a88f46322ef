"""Detection of a Parquet file's image, caption and number columns from its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from lidit_jax.data.sources.class_captions import class_caption
from lidit_jax.data.sources.columns import Columns, columns
from lidit_jax.errors import LiditError

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_NAMES = ("image", "img", "picture", "photo", "jpg", "png")
"""Preferred names among several image columns, in order."""


class TableColumns(NamedTuple):
    """Columns in use, by name."""

    image: str
    texts: tuple[str, ...]
    """Columns of strings and lists of strings."""
    numbers: tuple[str, ...]
    classes: Mapping[str, tuple[str, ...]]
    """Columns with the number of a class, each with the names of the classes; they give captions
    where there are no texts."""

    @property
    def names(self) -> list[str]:
        """All columns in use."""
        return [self.image, *self.texts, *self.numbers, *self.classes]

    def values(self, row: Mapping[str, Any], where: str) -> Columns:
        """Return the captions and numbers of a row.

        Args:
          row: values of the columns, as Python types.
          where: name of the row in messages.

        Raises:
          LiditError: when a text is damaged.
        """
        found = dict[str, Any]()
        for name in self.texts:
            if isinstance(value := row[name], list):
                found |= {f"{name}_{i}": text for i, text in enumerate(value) if text is not None}
            elif value is not None:
                found[name] = value
        for name in self.numbers:
            if (value := row[name]) is not None:
                found[name] = float(value) if isinstance(value, Decimal) else value
        for name, classes in self.classes.items():
            value = row[name]
            if value is None:
                continue
            found[name] = value
            if not self.texts and 0 <= value < len(classes):
                found[name] = class_caption(classes[value])
        return columns(found, where)


def table_columns(schema: pa.Schema, named: str) -> TableColumns:
    """Select the columns of a table to use.

    Args:
      schema: its schema; its metadata may hold features of `datasets`.
      named: name of the file in messages.

    Raises:
      LiditError: when there is no image column, more than one, or no caption column.
    """
    import pyarrow.types as kinds

    if len(set(schema.names)) < len(schema.names):
        raise LiditError(f"{named} has several columns of one name: rename all but one")
    features = _features(schema, named)
    marked = [f.name for f in schema if _kind(features.get(f.name)) == "Image"]
    images = [f.name for f in schema if f.name in marked or (not marked and _holds_bytes(f.type))]
    classes = {
        field.name: tuple(map(str, features[field.name].get("names") or ()))
        for field in schema
        if _kind(features.get(field.name)) == "ClassLabel" and kinds.is_integer(field.type)
    }
    texts = [field.name for field in schema if _holds_text(field.type)]
    numbers = [f.name for f in schema if _is_number(f.type) and f.name not in classes]
    image = _chosen_image(images, schema, named)
    if not texts and not classes:
        raise LiditError(
            f"{named} has no column of captions, only {_described(schema)}: add one with strings"
        )
    return TableColumns(image, tuple(texts), tuple(numbers), classes)


def _chosen_image(images: Sequence[str], schema: pa.Schema, named: str) -> str:
    if not images:
        raise LiditError(
            f"{named} has no column of images, only {_described(schema)}: write the encoded files "
            "(JPEG, PNG) as bytes; datasets' feature Image does"
        )
    if len(images) == 1:
        return images[0]
    known = {name.lower(): name for name in reversed(images)}
    for name in IMAGE_NAMES:
        if name in known:
            return known[name]
    raise LiditError(
        f"{named} has {len(images)} columns of images, {', '.join(map(repr, images))}: rename the "
        "one to read to 'image'"
    )


def _features(schema: pa.Schema, named: str) -> dict[str, Any]:
    """Return the features of `datasets` in the schema's metadata."""
    written = (schema.metadata or {}).get(b"huggingface")
    if written is None:
        return {}
    try:
        features = json.loads(written)["info"]["features"]
        if isinstance(features, dict):
            return features
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise LiditError(f"{named} has damaged metadata of datasets: write it anew")


def _kind(feature: Any) -> str:
    return str(feature.get("_type")) if isinstance(feature, dict) else ""


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds

    return kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    """Return whether a column may hold images: bytes, or a struct with bytes."""
    import pyarrow.types as kinds

    if kinds.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return _is_bytes(kind)


def _holds_text(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind) or kinds.is_list(kind) or kinds.is_large_list(kind):
        kind = kind.value_type
    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds

    tests = (kinds.is_integer, kinds.is_floating, kinds.is_boolean, kinds.is_decimal)
    return any(test(kind) for test in tests)


def _described(schema: pa.Schema) -> str:
    told = [f"{field.name!r} ({field.type})" for field in schema][:10]
    more = f" and {len(schema) - len(told)} more" if len(schema) > len(told) else ""
    return (", ".join(told) or "no column at all") + more
