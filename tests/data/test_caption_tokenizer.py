"""Captions of fixed lengths: room for those that were looked at, and what is longer is cut."""

import numpy as np
import pytest

from lidit_jax.data.caption_tokenizer import CaptionTokenizer, prompt_tokens
from lidit_jax.encoders.conditions import PromptEncoders


@pytest.fixture(scope="module")
def encoders(tiny_config):
    """A byte is a token of both, and both have an instruction and an end token."""
    return PromptEncoders(tiny_config().encoders)


def test_the_longest_caption_is_counted_in_tokens(encoders):
    assert prompt_tokens(encoders, ["a cat", "a dog there"]) == [11, 11]
    assert prompt_tokens(encoders, []) == [0, 0]
    assert prompt_tokens(encoders, ["x" * 200]) == [96, 96], "longer ones are cut"


def test_rows_have_room_for_more_and_whole_steps_up_to_the_limit(encoders):
    for longest in (0, 11, 40, 96):
        for stream in CaptionTokenizer(encoders, [longest] * 2).streams:
            needed = stream.prefix_length + longest + 1
            if longest < 96:
                assert stream.tokens % 8 == 0
                assert needed + 8 <= stream.tokens < needed + 16
            else:
                assert stream.tokens == needed, "no caption is longer"


def test_tokens_are_those_of_the_encoders_and_what_is_too_long_is_cut_and_counted(encoders):
    tokenizer = CaptionTokenizer(encoders, [11, 11])
    captions = ["a cat", "x" * 90]
    found = tokenizer(captions)
    assert tokenizer.truncated == 1
    for k, (stream, sizes) in enumerate(zip(encoders.streams, tokenizer.streams, strict=True)):
        alone = stream.tokenize(captions[:1], encoders.prompt_format)
        count = alone.ids.shape[1]
        np.testing.assert_array_equal(found["ids"][k][0, :count], alone.ids[0])
        assert found["masks"][k].sum(axis=1).tolist() == [count, sizes.tokens]
    tokenizer(captions)
    assert tokenizer.truncated == 2
    example = tokenizer.example(2)
    for name in ("ids", "masks"):
        for array, shape in zip(found[name], example[name], strict=True):
            assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
