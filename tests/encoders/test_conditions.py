"""Prompts to conditions: the instruction is read once, and nothing in the features shows it."""

import json

import jax
import numpy as np
import pytest

from lidit_jax import encoders
from lidit_jax.config.prompt_format import PromptFormat
from lidit_jax.config.schema import EncoderConfig, MeshConfig
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.errors import LiditError
from lidit_jax.parallel.mesh import make_mesh

PROMPTS = ["a red circle", "", "three green stars above a large blue square"]


def rms_error(ours, theirs) -> float:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / np.sqrt(np.mean(theirs**2)))


def test_a_causal_stream_takes_the_short_way_and_arrives_at_the_full_features(tiny_encoders):
    """The bidirectional stream has no short way: its instruction sees the prompt."""
    config = EncoderConfig(sources=tiny_encoders)
    streams = PromptEncoders(config)
    causal, bidirectional = streams._instructions
    assert bidirectional is None
    conditions, prefix_lengths = streams.encode(PROMPTS)
    assert prefix_lengths == (len(causal.features), streams.streams[1].tokenize([""]).prefix_length)
    for k, stream in enumerate(streams.streams):
        tokens = stream.tokenize(PROMPTS)
        full = stream.features(stream.params, tokens.ids, tokens.mask, streams.layers[k])
        features, mask = np.asarray(conditions.features[k]), np.asarray(conditions.masks[k])
        assert features.shape[1] % 16 == 0
        np.testing.assert_array_equal(mask[:, : tokens.mask.shape[1]], tokens.mask)
        assert rms_error(features[mask], np.asarray(full)[tokens.mask]) <= 1e-5


def test_layers_are_described_by_number_and_those_of_no_block_refused(tiny_encoders):
    streams = PromptEncoders(EncoderConfig(tiny_encoders, layers=((-1, 2), "all")))
    assert streams.layers == [(-1, 2), (1, 2, 3, 4)]
    assert streams.layer_counts == (2, 4)
    described = json.loads(json.dumps(streams.description))
    assert [stream["layer"] for stream in described] == [[-1, 2], [1, 2, 3, 4]]
    streams.check(described)
    described[0]["layer"] = [2, -1]
    with pytest.raises(LiditError, match=r"its layer is \[-1, 2\], was \[2, -1\]"):
        streams.check(described)
    with pytest.raises(LiditError, match=r"config.encoders.layers of .*: layer 9 does not exist"):
        PromptEncoders(EncoderConfig(tiny_encoders, layers=(-1, (9, 1))))


def test_the_seam_is_where_instruction_and_prompt_are_joined(tiny_encoders):
    """Both are tokenized on their own, and the first prompt token sees the whole instruction."""
    stream = encoders.load(tiny_encoders[0])
    prompt_format = PromptFormat("draw:")
    apart = stream.tokenizer.prefix(prompt_format) + stream.tokenizer.encode(["a cat"])[0]
    tokens = stream.tokenize(["a cat"], prompt_format)
    assert tokens.ids[0].tolist() == [*apart, stream.tokenizer.end]
    assert tokens.prefix_length == len(stream.tokenizer.prefix(prompt_format))

    layer = stream.default_layer
    full = np.asarray(stream.encode(tokens, layer))
    prefix = stream.prefix_cache(stream.params, prompt_format, layer)
    seam = slice(tokens.prefix_length - 1, tokens.prefix_length + 2)
    cached = np.asarray(stream.encode(tokens, layer, prefix))
    assert rms_error(cached[:, seam], full[:, seam]) <= 1e-5
    # A cache that lost its last token would be noticed here.
    shorter = prefix._replace(keys=prefix.keys.at[:, -1].set(0))
    assert rms_error(stream.encode(tokens, layer, shorter)[:, seam], full[:, seam]) > 1e-3


def test_padding_on_the_left_goes_round_the_cache(tiny_encoders):
    stream = encoders.load(tiny_encoders[0])
    layer = stream.default_layer
    prefix = stream.prefix_cache(stream.params, PromptFormat(), layer)
    left, right = (stream.tokenize(PROMPTS, padding=side) for side in ("left", "right"))
    features = np.asarray(stream.encode(left, layer, prefix))
    expected = np.asarray(stream.encode(right, layer, prefix))
    assert rms_error(features[left.mask], expected[right.mask]) <= 1e-5


def test_the_cache_skips_the_instruction_s_work(tiny_encoders):
    stream = encoders.load(tiny_encoders[0])
    tokens, layer = stream.tokenize(PROMPTS), stream.default_layer
    prefix = stream.prefix_cache(stream.params, PromptFormat(), layer)

    def flops(prefix) -> float:
        lowered = jax.jit(stream.features, static_argnames="layer").lower(
            stream.params, tokens.ids, tokens.mask, layer=layer, prefix=prefix
        )
        return lowered.compile().cost_analysis()["flops"]

    share = 1 - tokens.prefix_length / tokens.ids.shape[1]
    assert flops(prefix) <= 1.2 * share * flops(None)


def test_weights_shared_over_a_mesh_give_the_same_conditions(tiny_encoders):
    config = EncoderConfig(sources=tiny_encoders)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    alone, shared = PromptEncoders(config), PromptEncoders(config, mesh)
    (q,) = {stream.params["layers"]["q"].sharding.spec for stream in shared.streams}
    assert tuple(q) == (None, "fsdp", "tensor")
    for ours, theirs in zip(
        shared.encode(PROMPTS)[0].features, alone.encode(PROMPTS)[0].features, strict=True
    ):
        assert rms_error(ours, theirs) <= 1e-5


def test_int8_features_are_close_and_never_taken_for_the_exact_ones(tiny_encoders):
    for source in tiny_encoders:
        exact, narrow = (encoders.load(source, dtype=dtype) for dtype in ("float32", "int8"))
        assert (exact.dtype, narrow.dtype) == ("float32", "int8")
        assert narrow.fingerprint == exact.fingerprint | {"dtype": "int8"}
        tokens, layer = exact.tokenize(PROMPTS), exact.default_layer
        reference, ours = (
            np.asarray(stream.encode(tokens, layer), np.float32)[tokens.mask]
            for stream in (exact, narrow)
        )
        lengths = np.linalg.norm(reference, axis=-1) * np.linalg.norm(ours, axis=-1)
        assert ((reference * ours).sum(-1) / lengths).min() >= 0.999
        assert np.linalg.norm(ours - reference) <= 0.03 * np.linalg.norm(reference)


def test_prompts_that_look_the_same_are_encoded_the_same(tiny_encoders):
    streams = PromptEncoders(EncoderConfig(sources=tiny_encoders))
    (clean, _), (untidy, _) = (
        streams.encode([text]) for text in ("a café", "\ufeff a\u2028 cafe\u0301\n")
    )
    jax.tree.map(np.testing.assert_array_equal, untidy, clean)
    for ask in (streams.encode, streams.check_lengths):
        with pytest.raises(LiditError, match=r"prompt 2: .* half of a character"):
            ask(["a", "\ud83d"])
