"""Serialized `tf.train.Example` records, the encoding of TensorFlow and TFDS, without either.

An example is a set of named features, each a list of bytes, of floats or of whole numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from lidit_jax.errors import LiditError

KEY = "__key__"
"""Feature with the name of a record, in files written here."""
IMAGE = "image"
"""Feature with the encoded file of an image, in files written here."""

Feature = Sequence[bytes] | Sequence[float] | Sequence[int]


def parse_example(content: bytes, named: str) -> dict[str, list[Any]]:
    """Parse an example to features by name; those without values are excluded.

    Args:
      content: the serialized example.
      named: its name in messages.

    Raises:
      LiditError: when it is not an example.
    """
    from google.protobuf.message import DecodeError

    example = _message("Example")()
    try:
        example.ParseFromString(content)
    except DecodeError as error:
        raise LiditError(f"{named} is no tf.train.Example: {_REMEDY}") from error
    found = dict[str, list[Any]]()
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind and (values := list(getattr(feature, kind).value)):
            found[name] = values
    if not found:
        raise LiditError(f"{named} is no tf.train.Example, or an empty one: {_REMEDY}")
    return found


def write_example(features: Mapping[str, Feature]) -> bytes:
    """Serialize features as an example; equal features give equal bytes.

    Args:
      features: lists of bytes, of floats (kept in 32 bits) or of whole numbers, by name.
    """
    example = _message("Example")()
    for name, values in features.items():
        feature = example.features.feature[name]
        if all(isinstance(value, bytes) for value in values):
            feature.bytes_list.value.extend(values)
        elif all(isinstance(value, int) for value in values):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    return example.SerializeToString(deterministic=True)


_REMEDY = (
    "write the records as tf.train.Example with the feature 'image' (the encoded file) and "
    "captions as bytes, or by `lidit data convert`"
)


@functools.cache
def _message(name: str) -> Any:
    """Build a class of `tensorflow/core/example/example.proto`.

    It uses a separate descriptor pool, as TensorFlow and TFDS register theirs in the default one.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="example.proto", package="tensorflow", syntax="proto3"
    )
    scalars = {
        "BytesList": field.TYPE_BYTES,
        "FloatList": field.TYPE_FLOAT,
        "Int64List": field.TYPE_INT64,
    }
    for list_name, kind in scalars.items():
        message = file.message_type.add(name=list_name)
        message.field.add(name="value", number=1, type=kind, label=field.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, list_name in enumerate(scalars, start=1):
        feature.field.add(
            name=list_name.lower().replace("list", "_list"),
            number=number,
            type=field.TYPE_MESSAGE,
            type_name=f".tensorflow.{list_name}",
            label=field.LABEL_OPTIONAL,
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    for message, member, number, kind, label in (
        (entry, "value", 2, "Feature", field.LABEL_OPTIONAL),
        (features, "feature", 1, "Features.FeatureEntry", field.LABEL_REPEATED),
        (file.message_type.add(name="Example"), "features", 1, "Features", field.LABEL_OPTIONAL),
    ):
        message.field.add(
            name=member,
            number=number,
            type=field.TYPE_MESSAGE,
            type_name=f".tensorflow.{kind}",
            label=label,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.{name}"))
