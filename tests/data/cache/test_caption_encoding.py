"""Encoding of captions: few shapes, and on several devices what one device says."""

import json
import shutil

import jax
import pytest

from lidit_jax.config.schema import EncoderConfig, MeshConfig
from lidit_jax.data.cache.caption_encoding import CaptionEncoder, padded_tokens
from lidit_jax.data.cache.feature_bytes import unpacked
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.errors import LiditError
from lidit_jax.parallel.mesh import make_mesh
from tests.numerics import assert_same_in_bfloat16, rounding

TEXTS = [f"{'star ' * (i % 9)}{i}" for i in range(70)]


def test_lengths_are_few_and_close():
    lengths = [padded_tokens(tokens) for tokens in range(1, 513)]
    assert len(set(lengths)) == 16
    for tokens, length in enumerate(lengths, start=1):
        assert tokens <= length <= max(tokens + 15, 5 * tokens / 4)
    assert padded_tokens(500, 510) == 510


@pytest.mark.numeric
def test_several_devices_say_what_one_says(compiled_once, tiny_encoders):
    config = EncoderConfig(sources=tiny_encoders, instruction="Draw:", max_prompt_tokens=30)
    mesh = make_mesh(MeshConfig(data=1, fsdp=2), jax.devices()[:2])
    one, two = (CaptionEncoder(PromptEncoders(config, where), "bfloat16") for where in (None, mesh))
    for stream in range(2):
        done = []
        ours, theirs = two(stream, TEXTS, done.append), one(stream, TEXTS, lambda rows: None)
        assert done == [64, 6]
        assert (ours.tokens, ours.truncated) == (theirs.tokens, theirs.truncated)
        assert theirs.truncated == sum(len(text) > 30 for text in TEXTS)
        for mine, other in zip(ours.packed, theirs.packed, strict=True):
            (a,), (b,) = (unpacked(memoryview(p), ((16,),), "bfloat16") for p in (mine, other))
            assert_same_in_bfloat16(a, b, rounding(terms=64, sums=24))


def test_no_caption_is_nothing(compiled_once, tiny_encoders):
    config = EncoderConfig(sources=tiny_encoders[:1])
    found = CaptionEncoder(PromptEncoders(config), "int8")(0, [], lambda rows: None)
    assert (found.packed, found.tokens, found.truncated) == ([], 0, 0)


def test_an_instruction_that_is_not_constant_is_not_kept_once(tiny_encoders, tmp_path):
    """Dynamic RoPE turns it otherwise in texts beyond the first context."""
    folder = shutil.copytree(tiny_encoders[0], tmp_path / "dynamic")
    fields = json.loads((folder / "config.json").read_text())
    fields |= {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}
    fields |= {"max_position_embeddings": 16}
    (folder / "config.json").write_text(json.dumps(fields))
    config = EncoderConfig(sources=(str(folder),), instruction="Draw:", max_prompt_tokens=30)
    encode = CaptionEncoder(PromptEncoders(config), "bfloat16")
    with pytest.raises(LiditError, match=r"a caption of \d+ tokens is longer than the first"):
        encode(0, [TEXTS[8]], lambda rows: None)
