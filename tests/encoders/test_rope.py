"""Angles of rotary position embedding: exact at any length, stretched as transformers does."""

import jax
import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lidit_jax.encoders import families
from lidit_jax.encoders.decoder import Decoder
from lidit_jax.encoders.rope import Rope, rotate, rotation
from lidit_jax.errors import LiditError
from lidit_jax.weights import huggingface
from tests.encoders.test_config_fields import config_of, transformers_model

WIDTH = 64
CONTEXT = 4096
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
SHORT, LONG = [1.0 + 0.01 * i for i in range(WIDTH // 2)], [1.0 + i for i in range(WIDTH // 2)]
LONGROPE = {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG}
LONGROPE |= {"original_max_position_embeddings": 2048}
LLAMA3 = YARN | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def transformers_config(rope: dict) -> transformers.PreTrainedConfig:
    return transformers.Qwen2Config(
        hidden_size=4 * WIDTH,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_theta": 1e6} | rope,
    )


@pytest.mark.parametrize("rope", [Rope(1e4), Rope(1e6, factor=4.0), Rope(1e6, amplitude=1.25)])
def test_angles_are_exact_after_thousands_of_tokens(rope):
    """One rounding to float32: half of 2**-23 of values below 2, for sine and cosine alike.

    Angles in float32 would be off by 4000 * 2**-24, a thousand times as much."""
    positions = np.array([[0, 1, 667, 3999], [1, 4000, 2, 3]], np.int32)
    turn = jax.jit(rotation, static_argnums=(0, 2, 3))(rope, positions, WIDTH, 4001)
    frequencies = rope.theta ** (-np.arange(0, WIDTH, 2, dtype=np.longdouble) / WIDTH)
    angles = positions[..., None, None] * frequencies / rope.factor
    for ours, wave in zip(turn, (np.cos, np.sin), strict=True):
        assert ours.dtype == np.float32
        error = np.abs(np.asarray(ours) - rope.amplitude * wave(angles)).max()
        assert error <= 2**-24 * rope.amplitude


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": 8.0},
        LLAMA3,
        YARN,
        YARN | {"rope_theta": 1e4, "factor": 40.0},
        YARN | {"beta_fast": 16.0, "beta_slow": 2.0},
        YARN | {"attention_factor": 0.75},
        YARN | {"mscale": 0.7, "mscale_all_dim": 1.3},
        YARN | {"truncate": False},
        YARN | {"original_max_position_embeddings": 8},
        {"rope_type": "yarn", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        LONGROPE,
        LONGROPE | {"factor": 8.0},
        LONGROPE | {"attention_factor": 0.75},
    ],
)
def test_frequencies_and_amplitude_are_those_of_transformers(parameters):
    """Theirs are float32, a few roundings of 2**-24 from ours."""
    theirs = transformers_config(parameters)
    rope = Rope.from_huggingface(theirs.to_dict())
    if (kind := parameters["rope_type"]) == "default":
        expected = {1: 1.0 / 1e6 ** (torch.arange(0, WIDTH, 2) / WIDTH)}
        amplitude = 1.0
    else:
        expected = {
            length: ROPE_INIT_FUNCTIONS[kind](theirs, "cpu", seq_len=length)[0]
            for length in (1, 2048, 2049, CONTEXT, CONTEXT + 1, 3 * CONTEXT)
        }
        amplitude = ROPE_INIT_FUNCTIONS[kind](theirs, "cpu")[1]
    for length, frequencies in expected.items():
        ours = rope.frequencies(WIDTH, length)
        np.testing.assert_allclose(ours, frequencies.numpy(), rtol=16 * 2**-24)
    assert rope.amplitude == pytest.approx(amplitude)


def test_the_fields_of_transformers_4_mean_the_same():
    """`rope_scaling` with "type", beside `rope_theta`; it goes before `rope_parameters`."""
    older = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    config = {"rope_theta": 1e6, "max_position_embeddings": CONTEXT, "rope_scaling": older}
    newer = transformers_config(YARN).to_dict()
    assert Rope.from_huggingface(config) == Rope.from_huggingface(newer)
    assert Rope.from_huggingface(config | {"rope_parameters": {"rope_type": "default"}}).factor == 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rope_scaling": {"type": "axial"}}, "RoPE scaling 'axial' is not supported: use a model"),
        ({"rope_scaling": {"type": "longrope"}}, "RoPE scaling 'longrope' lacks 'max_position_emb"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor of 0 is not supported"),
        ({"rope_parameters": {"full_attention": {}}}, "differ between kinds of attention"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
    ],
)
def test_what_is_not_supported_is_named(config, message):
    with pytest.raises(LiditError, match=message):
        Rope.from_huggingface(config)


def test_one_factor_too_few_is_named():
    config = transformers_config(LONGROPE).to_dict()
    with pytest.raises(LiditError, match="'longrope' has 32 factors for 24 channel pairs"):
        Rope.from_huggingface(config).frequencies(48)


def test_a_part_of_a_head_is_turned_and_the_rest_stays():
    rope = Rope(1e4, partial=0.75)
    positions = np.arange(5, dtype=np.int32)[None]
    x = np.random.default_rng(0).normal(size=(1, 5, 2, 16)).astype(np.float32)
    turned = np.asarray(rotate(jax.numpy.asarray(x), *rotation(rope, positions, 16, 5)))
    np.testing.assert_array_equal(turned[..., 12:], x[..., 12:])
    whole = rotate(jax.numpy.asarray(x[..., :12]), *rotation(Rope(1e4), positions, 12, 5))
    np.testing.assert_array_equal(turned[..., :12], whole)


BY_LENGTH = {
    "dynamic": ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}),
    "longrope": (
        "phi3",
        {
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0, 1.25, 1.5],
                "long_factor": [2.0, 8.0, 32.0],
            },
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 16,
            "sliding_window": None,
        },
    ),
}


@pytest.mark.parametrize("kind", BY_LENGTH)
def test_each_text_turns_as_it_would_alone_beyond_the_first_context_too(tmp_path, kind):
    """Transformers decides by the longest text of a batch, so here it reads one text at a time,
    the short ones first, because it remembers the longest one."""
    family, fields = BY_LENGTH[kind]
    context = 16 if kind == "dynamic" else 64
    config = config_of(family) | fields | {"max_position_embeddings": context}
    model = transformers_model(tmp_path, config)
    model.save_pretrained(tmp_path)
    decoder, table = families.read(config)
    assert isinstance(decoder, Decoder)
    # transformers 5 has saved it with `rope_parameters`.
    assert families.read(huggingface.read_json(tmp_path / "config.json"))[0] == decoder
    files = huggingface.safetensors_files(tmp_path)
    params = huggingface.load_params(files, table, decoder.shapes(), "float32")
    lengths = (9, 16, 17, 40)
    rows = [np.random.default_rng(n).integers(2, 40, n).astype(np.int32) for n in lengths]
    ids, mask = np.zeros((4, 43), np.int32), np.zeros((4, 43), bool)
    for i, row in enumerate(rows):  # padded on the right, and on the left
        place = slice(0, len(row)) if i % 2 else slice(43 - len(row), 43)
        ids[i, place], mask[i, place] = row, True
    states = np.asarray(jax.jit(decoder.hidden_states)(params, ids, mask))
    for i, row in enumerate(rows):
        with torch.no_grad():
            output = model(torch.from_numpy(row[None]).long(), output_hidden_states=True)
        theirs = torch.stack(output.hidden_states).numpy()[:, 0]
        # A few hundred roundings of 2**-24, on values up to some times their rms.
        size = np.sqrt(np.mean(theirs**2))
        assert np.abs(states[:, i, mask[i]] - theirs).max() <= 1e-4 * size
    # The keys of a prefix alone are turned otherwise than those of the long text.
    assert decoder.constant_prefix(16)
    assert not decoder.constant_prefix(17)
    prefix = decoder.prefix_cache(params, rows[3][:5], -1)
    one = ids[3:, :40], mask[3:, :40]
    behind = decoder.features(params, *one, -1, prefix)
    np.testing.assert_array_equal(behind, decoder.features(params, *one, -1))
