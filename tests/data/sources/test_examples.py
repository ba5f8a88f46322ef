"""The encoding of `tf.train.Example`."""

import pytest
from tensorflow_datasets.proto import tf_example_pb2

from lidit_jax.data.sources.examples import parse_example, write_example
from lidit_jax.errors import LiditError

FEATURES = {"image": [b"\xff\x00"], "numbers": [1.5, -2.0], "whole": [3, -4, 2**62]}


def test_it_is_the_encoding_of_tfds():
    content = write_example(FEATURES)
    example = tf_example_pb2.Example.FromString(content)
    assert list(example.features.feature["whole"].int64_list.value) == [3, -4, 2**62]
    assert list(example.features.feature["numbers"].float_list.value) == [1.5, -2.0]
    assert list(example.features.feature["image"].bytes_list.value) == [b"\xff\x00"]
    assert parse_example(example.SerializeToString(), "x") == FEATURES


def test_the_order_of_features_changes_no_byte():
    backwards = dict(reversed(FEATURES.items()))
    assert write_example(FEATURES) == write_example(backwards)


def test_features_without_values_are_left_out():
    assert parse_example(write_example({**FEATURES, "none": []}), "x") == FEATURES


@pytest.mark.parametrize("content", [b"", b"\xff", write_example(FEATURES)[:-3]])
def test_other_bytes_are_named(content):
    with pytest.raises(LiditError, match=r"x is no tf\.train\.Example.*: write the records as"):
        parse_example(content, "x")
