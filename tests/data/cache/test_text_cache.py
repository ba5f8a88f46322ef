"""Cached text features: what the encoders say of every caption in use, in every stream."""

import pickle

import jax
import ml_dtypes
import numpy as np
import pytest

from lidit_jax.config.data_settings import ReadingSettings
from lidit_jax.config.schema import EncoderConfig
from lidit_jax.data.cache import caption_encoding, layout
from lidit_jax.data.cache.feature_bytes import Storage
from lidit_jax.data.cache.store import Missing
from lidit_jax.data.cache.text_cache import text_cache
from lidit_jax.data.record_reading import UnusableRecordError
from lidit_jax.data.streamed_source import SharedCaptions
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.errors import LiditError
from tests.data.cache.stand_ins import files, opened, used_records
from tests.numerics import assert_rounded_to_bfloat16, rounding

SETTINGS = {"instruction": "Draw:", "max_prompt_tokens": 36}
CAPTIONS = {
    i: {"caption": f" {'star ' * (i % 8)} {i % 10}", "title": f"{i % 3}"} for i in range(40)
}
COLUMNS = ("caption", "title")


@pytest.fixture(scope="module")
def encoders(compiled_once, tiny_encoders):
    return PromptEncoders(EncoderConfig(sources=tiny_encoders, **SETTINGS))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(layout, "_SHARD_BYTES", 16 * 64 * 2 * 2 * 16)
    monkeypatch.setattr(caption_encoding, "_BATCH", 8)


def data(captions=None, **changes):
    return opened(captions=captions or CAPTIONS, columns=COLUMNS, **changes)


def make(opened_data, encoders, folder, missing: Missing = "build", reading=None, **options):
    reading = ReadingSettings(**(reading or {}))
    return text_cache(opened_data, encoders, folder, reading, missing, **options)


def cleaned(own, column):
    return " ".join(CAPTIONS[own][column].split())


@pytest.fixture(scope="module")
def several(compiled_once, tiny_encoders):
    """Two layers of the first encoder, the last one first, and one of the second."""
    return PromptEncoders(EncoderConfig(sources=tiny_encoders, layers=((-1, 1), -1), **SETTINGS))


@pytest.fixture(scope="module")
def direct():
    """Features and tokens of a text in every stream, encoded alone and with the instruction."""

    def encode(encoders, text):
        for stream, layer in zip(encoders.streams, encoders.layers, strict=True):
            tokens = stream.tokenize(
                [text], encoders.prompt_format, max_prompt_tokens=36, overflow="truncate", length=43
            )
            yield np.asarray(stream.encode(tokens, layer))[0], tokens

    return encode


@pytest.mark.numeric
@pytest.mark.parametrize("workers", [0, 1])
def test_every_caption_in_use_has_the_features_of_the_encoders(encoders, direct, tmp_path, workers):
    given = data()
    cache = pickle.loads(pickle.dumps(make(given, encoders, tmp_path, workers=workers)))
    assert [stream.width for stream in cache.streams] == [16, 16]
    assert [stream.prefix_length for stream in cache.streams] == [6, 6]
    assert [len(stream.prefix) for stream in cache.streams] == [6, 0]
    assert [stream.length for stream in cache.streams] == [48, 48], "6 + 36 + 1, rounded up"
    for record, _, own in [*used_records(given)][::7]:
        for column in COLUMNS:
            features, masks = cache.read(record, column)
            expected = direct(encoders, cleaned(own, column))
            for ours, mask, (exact, tokens) in zip(features, masks, expected, strict=True):
                count = int(tokens.mask.sum())
                assert ours.dtype == ml_dtypes.bfloat16
                np.testing.assert_array_equal(mask, np.arange(48) < count)
                np.testing.assert_array_equal(ours[count:], 0)
                assert_rounded_to_bfloat16(ours[:count], exact[:count], rounding(terms=64, sums=24))


@pytest.mark.numeric
def test_int8_is_off_by_at_most_half_a_step_of_each_token(encoders, tmp_path, capsys):
    """And by the rounding to bfloat16: of the value read, and of the one that it is compared to."""
    given = data()
    exact = make(given, encoders, tmp_path)
    capsys.readouterr()
    small = make(given, encoders, tmp_path, storage="int8")
    assert "int8 differs by 0." in capsys.readouterr().out
    assert small.store.folder != exact.store.folder
    for record, *_ in used_records(given):
        for ours, theirs in zip(
            small.read(record, "caption")[0], exact.read(record, "caption")[0], strict=True
        ):
            ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
            largest = np.abs(theirs).max(axis=1, keepdims=True)
            # bfloat16 has 8 bits: a value is rounded by 2^-9 of it at most.
            bound = largest * (1 / 254 + 3 * 2.0**-9)
            assert (np.abs(ours - theirs) <= bound).all()
    sizes = [cache.store.facts.total["bytes"] for cache in (small, exact)]
    assert sizes[0] < 0.7 * sizes[1], "16 + 4 bytes a token, not 32"


@pytest.mark.numeric
def test_several_layers_are_stored_in_their_order_each_with_its_own_scale(
    several, direct, tmp_path
):
    given = data()
    kinds: tuple[Storage, ...] = ("bfloat16", "int8")
    exact, small = (make(given, several, tmp_path, storage=kind) for kind in kinds)
    (record, _, own), *_ = used_records(given)
    found = (cache.read(record, "caption")[0] for cache in (exact, small))
    expected = direct(several, cleaned(own, "caption"))
    for whole, codes, (theirs, tokens), layers in zip(*found, expected, (2, 1), strict=True):
        count = int(tokens.mask.sum())
        assert whole.shape == (48, *((2, 16) if layers == 2 else (16,)))
        assert_rounded_to_bfloat16(whole[:count], theirs[:count], rounding(terms=64, sums=24))
        largest = np.abs(theirs).max(axis=-1, keepdims=True)
        error = np.abs(codes.astype(np.float64) - whole.astype(np.float64))
        assert (error[:count] <= (largest * (1 / 254 + 3 * 2.0**-9))[:count]).all()
    assert [(s.width, s.layers) for s in exact.streams] == [(16, 2), (16, 1)]


def test_equal_captions_of_a_shard_are_encoded_and_stored_once(encoders, tmp_path, monkeypatch):
    texts = []
    call = caption_encoding.CaptionEncoder.__call__

    def spy(self, stream, given, advance):
        texts.append((stream, tuple(given)))
        return call(self, stream, given, advance)

    monkeypatch.setattr(caption_encoding.CaptionEncoder, "__call__", spy)
    same = {i: {"caption": "a red circle", "title": "a red circle"} for i in range(40)}
    cache = make(data(same), encoders, tmp_path)
    shards = len([*cache.store.layout.shards()])
    assert texts == [(0, ("a red circle",)), (1, ("a red circle",))] * shards
    read = cache.read(0, "caption")
    for ours, theirs in zip(
        jax.tree.leaves(cache.read(3, "title")), jax.tree.leaves(read), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    per_shard = 1 + 2 * 4 + (12 + 1 + 6 + 12 + 1) * 32
    assert cache.store.facts.total["bytes"] < shards * per_shard + 5 * 126


def test_two_writers_and_a_restart_give_the_same_files(encoders, tmp_path, monkeypatch):
    given = data()
    whole = make(given, encoders, tmp_path / "whole")
    call, calls = caption_encoding.CaptionEncoder.__call__, []

    def killed(self, *arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return call(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(caption_encoding.CaptionEncoder, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            make(given, encoders, tmp_path / "parts", share=(0, 2))
    assert len([*(tmp_path / "parts").glob("*/*.array_record")]) == 1
    make(given, encoders, tmp_path / "parts", share=(1, 2))
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert whole.store.facts.total["entries"] == 63 * 2


def test_captions_that_records_share_are_cached_once(encoders, tmp_path):
    """Even where the first record that has one is not used."""
    captions = {i: {"caption": f"{i % 9}", "title": f"{i % 9}"} for i in range(30)} | {
        i: {"caption": f"late {i}", "title": f"late {i}"} for i in range(30, 40)
    }
    given = data(captions, counts=(40,), shared=SharedCaptions(30, 9))
    cache = make(given, encoders, tmp_path)
    assert cache.store.facts.total["entries"] == 2 * (9 + 10)
    own = make(data(captions, counts=(40,), identity="own"), encoders, tmp_path)
    for record, *_ in used_records(given):
        for ours, theirs in zip(
            cache.read(record, "title"), own.read(record, "title"), strict=True
        ):
            for mine, other in zip(ours, theirs, strict=True):
                assert_rounded_to_bfloat16(mine, other, rounding(terms=64, sums=24))


def test_captions_that_are_cut_are_counted_and_told(encoders, tmp_path, capsys):
    cache = make(data(CAPTIONS | {3: {"caption": "x" * 37, "title": "y"}}), encoders, tmp_path)
    assert [stream.truncated for stream in cache.streams] == [2, 2], "one in each source"
    assert "2 captions exceed config.encoders.max_prompt_tokens" in capsys.readouterr().out


def test_unusable_captions_raise_again_when_they_are_read(encoders, tmp_path):
    given = data(CAPTIONS | {3: {"caption": " ", "title": "fine"}})
    cache = make(given, encoders, tmp_path, reading={"skipped_fraction": 0.1})
    for record in (3, 43):
        with pytest.raises(
            UnusableRecordError, match=r"record key 3 .* nothing in its column"
        ) as e:
            cache.read(record, "caption")
        assert e.value.kind == "bad_caption"
        cache.read(record, "title")
    assert cache.store.facts.total["unusable"] == 2
    with pytest.raises(LiditError, match=r"config\.data\.reading\.bad_caption to 'skip'"):
        make(given, encoders, tmp_path / "other", reading={"bad_caption": "fail"})


def test_what_determines_the_features_is_told_by_name(encoders, tiny_encoders, tmp_path):
    make(data(), encoders, tmp_path)

    def refusal(opened_data=None, storage="bfloat16", sources=tiny_encoders, **changes):
        others = PromptEncoders(EncoderConfig(sources=sources, **(SETTINGS | changes)))
        with pytest.raises(LiditError) as error:
            make(opened_data or data(), others, tmp_path, "refuse", storage=storage)
        return str(error.value)

    assert "instruction 'Draw:\\n', not 'Paint:\\n'" in refusal(instruction="Paint:")
    assert "lowercase False, not True" in refusal(lowercase=True)
    assert "encoder 2: layer -1, not -2" in refusal(layers=(-3, -2))
    assert "encoder 1: layer -3, not [-3, -1]" in refusal(layers=((-3, -1), -1))
    assert "max_prompt_tokens 36, not 20" in refusal(max_prompt_tokens=20)
    assert "text_storage 'bfloat16', not 'int8'" in refusal(storage="int8")
    assert "encoder 1: weights" in refusal(sources=(tiny_encoders[1], tiny_encoders[1]))
    assert "the data (records, filters, captions or shapes)" in refusal(data(identity="other"))
