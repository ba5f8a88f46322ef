"""Prepared text features are what the encoder says, for causal and bidirectional ones."""

import jax
import ml_dtypes
import numpy as np
import pytest
from lidit_jax.data.text_features import prepare_text_features

from lidit_jax import encoders
from lidit_jax.data import text_features
from lidit_jax.encoders import PromptFormat
from tests.numerics import assert_rounded_to_bfloat16, rounding

CAPTIONS = ["a", "two blue stars", "", "a red circle to the left of a green square", "x" * 60]
FORMAT = PromptFormat(instruction="Draw:")


@pytest.fixture(scope="module", params=["causal", "bidirectional"])
def encoder(request, compiled_once, tiny_encoders):
    return encoders.load(tiny_encoders[request.param == "bidirectional"])


def prepare(encoder, folder, captions=CAPTIONS, **changes):
    settings = {"layer": encoder.default_layer, "max_prompt_tokens": 50, "prompt_format": FORMAT}
    settings |= changes
    return prepare_text_features(
        encoder,
        captions,
        settings["prompt_format"],
        settings["layer"],
        settings["max_prompt_tokens"],
        folder,
        lambda done, total: None,
    )


def direct(encoder, captions=CAPTIONS):
    """The features of all captions, encoded at once with the instruction."""
    tokens = encoder.tokenize(captions, FORMAT, max_prompt_tokens=50, overflow="truncate")
    compute = jax.jit(encoder.features, static_argnames="layer")
    features = compute(encoder.params, tokens.ids, tokens.mask, layer=encoder.default_layer)
    return np.asarray(features), tokens


def assert_stored(prepared, exact):
    """As bfloat16, of features that another batch's shape may round otherwise in float32."""
    assert prepared.dtype == ml_dtypes.bfloat16
    assert_rounded_to_bfloat16(prepared, exact, rounding(terms=64, sums=24))


@pytest.mark.numeric
def test_features_equal_direct_encoding(encoder, tmp_path):
    prepared = prepare(encoder, tmp_path)
    expected, tokens = direct(encoder)
    assert prepared.prefix_length == tokens.prefix_length == 6
    for i in range(len(CAPTIONS)):
        features, mask = prepared[i]
        valid = tokens.mask[i].sum()
        np.testing.assert_array_equal(mask, np.arange(prepared.length) < valid)
        assert_stored(features[:valid], expected[i, :valid])
        np.testing.assert_array_equal(features[valid:], 0)


def test_lengths_are_rounded_up_and_long_captions_cut_and_counted(encoder, tmp_path):
    prepared = prepare(encoder, tmp_path)
    assert prepared.truncated == 1
    assert prepared.length == 64, "instruction 6, prompt 50, end 1, rounded up to a multiple of 8"
    _, mask = prepared[4]
    assert mask.sum() == 57


def test_a_causal_encoder_stores_the_instruction_once(encoder, tmp_path):
    prepared = prepare(encoder, tmp_path)
    assert len(prepared.prefix) == (6 if encoder.causal else 0)
    tokens = sum(min(len(caption), 50) + 1 for caption in CAPTIONS)
    instructions = 0 if encoder.causal else 6 * len(CAPTIONS)
    assert len(prepared.tokens) == tokens + instructions


@pytest.mark.numeric
def test_an_interrupted_preparation_equals_an_uninterrupted_one(encoder, tmp_path, monkeypatch):
    captions = [f"{'star ' * (i % 9)}{i}" for i in range(40)]
    whole = prepare(encoder, tmp_path / "whole", captions)

    monkeypatch.setattr(text_features, "_CHUNK", 16)
    monkeypatch.setattr(text_features, "_BATCH", 8)

    def break_off(done, total):
        if done == 16:
            raise KeyboardInterrupt

    arguments = (FORMAT, encoder.default_layer, 50, tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        prepare_text_features(encoder, captions, *arguments, break_off)
    reports = []
    parts = prepare_text_features(
        encoder, captions, *arguments, lambda done, total: reports.append(done)
    )
    assert reports == [16, 32, 40]
    exact, tokens = direct(encoder, captions)
    for i in range(len(captions)):
        valid = tokens.mask[i].sum()
        for features, mask in (parts[i], whole[i]):
            np.testing.assert_array_equal(mask, np.arange(len(mask)) < valid)
            assert_stored(features[:valid], exact[i, :valid])
            np.testing.assert_array_equal(features[valid:], 0)


def test_whatever_decides_the_features_decides_where_they_lie(encoder, tmp_path):
    prepare(encoder, tmp_path)

    def folders():
        return {path.name for path in tmp_path.iterdir() if path.is_dir()}

    known = folders()
    assert len(known) == 1
    prepare(encoder, tmp_path)
    assert folders() == known
    for changes in (
        {"layer": -2},
        {"max_prompt_tokens": 40},
        {"prompt_format": PromptFormat(instruction="Paint:")},
        {"captions": CAPTIONS[:4]},
    ):
        prepare(encoder, tmp_path, **changes)
        assert len(folders()) == len(known) + 1, changes
        known = folders()
