"""Each architecture written as llama.cpp's converter does, and compared with transformers.

The files are made with the `gguf` package from tiny random models of transformers, whose states and
tokens ours must equal.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import jax
import numpy as np
import pytest
import torch
import transformers
from transformers.tokenization_utils_base import generate_merges

from lidit_jax import encoders
from lidit_jax.encoders.rope import LongScaling
from lidit_jax.encoders.tokenizer_probes import PROBE_PROMPTS
from lidit_jax.errors import LiditError
from tests.encoders.tiny_models import randomize
from tests.weights.test_gguf import TOKENS, interleave
from tests.weights.test_sentencepiece_tokenizer import CHARSMAP, PIECES

ARCH = gguf.MODEL_ARCH
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SIZES = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3}
SIZES |= {"num_attention_heads": 3, "num_key_value_heads": 1, "max_position_embeddings": 64}
T5_SIZES = {"d_model": 24, "d_ff": 32, "num_layers": 2, "num_heads": 3, "d_kv": 8}
T5_SIZES |= {"vocab_size": len(PIECES) + 3, "relative_attention_num_buckets": 8}
IDS = np.random.default_rng(0).integers(3, 40, (2, 24)).astype(np.int32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def save(
    path: Path,
    arch: gguf.MODEL_ARCH,
    model: transformers.PreTrainedModel,
    keys: Callable[[gguf.GGUFWriter], Any],
    change: Callable[[str, np.ndarray], np.ndarray] = lambda name, array: array,
    extra: dict[str, np.ndarray] | None = None,
) -> Path:
    """`change` does to each tensor, by its new name, what the converter does."""
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    keys(writer)
    names = gguf.get_tensor_name_map(arch, 8)
    for name, tensor in model.state_dict().items():
        if name in ("encoder.embed_tokens.weight", "lm_head.weight"):
            continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert new is not None, name
        writer.add_tensor(new, change(new, tensor.numpy().copy()))
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_sizes(writer: gguf.GGUFWriter, config: transformers.PreTrainedConfig) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def add_byte_pairs(writer: gguf.GGUFWriter, pre: str) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([CONTROL] + [NORMAL] * (len(TOKENS) - 1))
    writer.add_token_merges(["r e", "re d", "Ġ red"])
    writer.add_eos_token_id(0)


def random_model(kind: type, config: transformers.PreTrainedConfig) -> Any:
    torch.manual_seed(0)
    model = kind(config).eval()
    randomize(model)
    return model


def assert_same_states(encoder: encoders.TextEncoder, model: Any, ids: np.ndarray = IDS) -> None:
    with torch.no_grad():
        output = model(torch.from_numpy(ids).long(), output_hidden_states=True)
    theirs = torch.stack(output.hidden_states).numpy()
    ours = jax.jit(encoder.hidden_states)(encoder.params, ids, np.ones_like(ids, bool))
    # A few hundred roundings of 2**-24, on values up to some times their rms.
    assert np.abs(np.asarray(ours) - theirs).max() <= 1e-4 * np.sqrt(np.mean(theirs**2))


def assert_same_tokens(encoder: encoders.TextEncoder, theirs: Any, more: list[str]) -> None:
    prompts = [*PROBE_PROMPTS, *more]
    expected = [theirs(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    assert encoder.tokenizer.encode(prompts) == expected


def verdict(cache: Path) -> str:
    (file,) = (cache / "tokenizers").glob("*/verdict.json")
    return json.loads(file.read_text())["kind"]


def test_llama_3_stretches_its_wavelengths_by_a_tensor(tmp_path):
    """llama.cpp's converter writes what Llama 3.1's rule makes of each channel pair."""
    rope = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    config = transformers.LlamaConfig(**SIZES, vocab_size=len(TOKENS), rope_parameters=rope)
    model = random_model(transformers.LlamaModel, config)
    plain = 100.0 ** -(np.arange(0, 8, 2) / 8)
    factors = (plain / model.rotary_emb.inv_freq.numpy()).astype(np.float32)
    assert factors[0] == pytest.approx(1.0)
    assert factors[-1] > 2

    def keys(writer):
        add_sizes(writer, config)
        writer.add_rope_freq_base(100.0)
        add_byte_pairs(writer, "smollm")

    def change(name, array):
        heads = {"attn_q": 3, "attn_k": 1}.get(name.split(".")[-2])
        return array if heads is None else interleave(array, heads)

    extra = {"rope_freqs.weight": factors}
    file = save(tmp_path / "tiny.gguf", ARCH.LLAMA, model, keys, change, extra)
    encoder = encoders.load(str(file))
    assert_same_states(encoder, model)
    assert encoder.model.constant_prefix(10**6)  # the same for texts of any length


def test_phi_has_factors_for_short_and_for_long_texts(tmp_path):
    rope = {"rope_type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [4.0, 9.0]}
    rope |= {"original_max_position_embeddings": 16, "partial_rotary_factor": 0.5}
    config = transformers.Phi3Config(
        **SIZES,
        vocab_size=len(TOKENS),
        rope_parameters=rope,
        original_max_position_embeddings=16,
        pad_token_id=0,
        eos_token_id=0,
    )
    model = random_model(transformers.Phi3ForCausalLM, config)

    def keys(writer):
        add_sizes(writer, config)
        writer.add_rope_dimension_count(4)
        writer.add_sliding_window(0)
        writer.add_rope_scaling_orig_ctx_len(16)
        writer.add_rope_scaling_attn_factors(float(model.model.rotary_emb.attention_scaling))
        add_byte_pairs(writer, "gpt-4o")

    extra = {
        "rope_factors_long.weight": np.array(rope["long_factor"], np.float32),
        "rope_factors_short.weight": np.array(rope["short_factor"], np.float32),
    }
    file = save(tmp_path / "tiny.gguf", ARCH.PHI3, model, keys, extra=extra)
    encoder = encoders.load(str(file))
    assert encoder.model.rope.by_length == LongScaling(16, (1.0, 1.5), (4.0, 9.0))
    assert_same_states(encoder, model)
    assert_same_states(encoder, model, IDS[:, :16])


GEMMA_TOKENS = [
    *(("<pad>", CONTROL), ("<eos>", CONTROL), ("<bos>", CONTROL), ("<unk>", UNKNOWN)),
    *(
        ("<mask>", CONTROL),
        ("<start_of_turn>", CONTROL),
        ("\n\n", USER_DEFINED),
        ("  ", USER_DEFINED),
    ),
    *((f"<0x{byte:02X}>", BYTE) for byte in range(256)),
    *((piece, NORMAL) for piece in ("▁", "\n", *"abcdefghijklmnopqrstuvwxyz", *"éя圆.,<>")),
    *((piece, NORMAL) for piece in ("ed", "▁a", "re", "red", "▁red", "▁▁▁", "ci", "rcle")),
]


def gemma(tmp_path: Path, window: int | None) -> tuple[Path, Any]:
    """A file without a window has no local blocks."""
    kinds = ["sliding_attention" if window and i != 1 else "full_attention" for i in range(3)]
    ropes = {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    }
    config = transformers.Gemma3TextConfig(
        **SIZES,
        vocab_size=len(GEMMA_TOKENS),
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=window or 64,
        layer_types=kinds,
        rope_parameters=ropes,
    )
    model = random_model(transformers.Gemma3ForCausalLM, config)

    def keys(writer):
        add_sizes(writer, config)
        writer.add_key_length(16)
        writer.add_value_length(16)
        writer.add_rope_freq_base(1e5)
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)
        if window:
            writer.add_sliding_window(window)
            writer.add_key_value("gemma3.attention.sliding_window_pattern", 2, *_UINT32)
            writer.add_key_value("gemma3.rope.freq_base_swa", 50.0, *_FLOAT32)
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([token for token, _ in GEMMA_TOKENS])
        writer.add_token_scores([-float(i) for i in range(len(GEMMA_TOKENS))])
        writer.add_token_types([kind for _, kind in GEMMA_TOKENS])
        for name, index in (("pad", 0), ("eos", 1), ("bos", 2), ("unk", 3)):
            getattr(writer, f"add_{name}_token_id")(index)
        writer.add_add_space_prefix(False)

    def change(name, array):
        return array + 1 if name.endswith("norm.weight") else array

    return save(tmp_path / "tiny.gguf", ARCH.GEMMA3, model, keys, change), model


_UINT32, _FLOAT32 = (gguf.GGUFValueType.UINT32,), (gguf.GGUFValueType.FLOAT32,)


@pytest.mark.parametrize("window", [5, None])
def test_gemma_3_stores_its_norms_one_higher(tmp_path, cache, window):
    file, model = gemma(tmp_path, window)
    encoder = encoders.load(str(file))
    assert encoder.model.local == ((True, False, True) if window else ())
    assert_same_states(encoder, model)
    tokens = ["▁▁" if token == "  " else token for token, _ in GEMMA_TOKENS]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = generate_merges(vocabulary, {token: -i for token, i in vocabulary.items()})
    theirs = transformers.GemmaTokenizer(vocab=vocabulary, merges=merges)
    theirs.add_tokens(["\n\n"])
    theirs.add_special_tokens({"additional_special_tokens": ["<start_of_turn>"]})
    assert_same_tokens(encoder, theirs, ["a red<start_of_turn>", "red     circle", "\n\n\n"])
    assert (encoder.tokenizer.begin, encoder.tokenizer.end) == ((2,), 1)
    assert verdict(cache) == "same"


def t5(tmp_path: Path, kind: str, **options: Any) -> tuple[Path, Any]:
    umt5 = kind == "umt5"
    config = (transformers.UMT5Config if umt5 else transformers.T5Config)(**T5_SIZES, **options)
    model = random_model(
        transformers.UMT5EncoderModel if umt5 else transformers.T5EncoderModel, config
    )

    def keys(writer):
        writer.add_context_length(512)
        writer.add_embedding_length(24)
        writer.add_feed_forward_length(32)
        writer.add_block_count(2)
        writer.add_head_count(3)
        writer.add_key_length(8)
        writer.add_value_length(8)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)
        writer.add_relative_attn_buckets_count(8)
        if kind == "t5":
            writer.add_decoder_start_token_id(0)
            writer.add_decoder_block_count(1)
        writer.add_tokenizer_model("t5")
        writer.add_tokenizer_pre("default")
        pads = [(f"[PAD{i}]", -10000.0) for i in range(len(PIECES), T5_SIZES["vocab_size"])]
        writer.add_token_list([piece for piece, _ in PIECES + pads])
        writer.add_token_scores([score for _, score in PIECES + pads])
        kinds = [CONTROL, CONTROL, UNKNOWN] + [NORMAL] * (len(PIECES) - 3)
        writer.add_token_types(kinds + [UNUSED] * len(pads))
        writer.add_add_space_prefix(True)
        writer.add_remove_extra_whitespaces(True)
        writer.add_precompiled_charsmap(CHARSMAP)
        for name, index in (("pad", 0), ("eos", 1), ("unk", 2)):
            getattr(writer, f"add_{name}_token_id")(index)

    arch = ARCH.T5 if kind == "t5" else ARCH.T5ENCODER
    extra = {"dec.blk.0.attn_q.weight": np.zeros((4, 4), np.float32)} if kind == "t5" else {}
    return save(tmp_path / "tiny.gguf", arch, model, keys, extra=extra), model


@pytest.mark.parametrize(
    ("kind", "options"),
    [("t5", {}), ("t5encoder", {"feed_forward_proj": "gated-gelu"}), ("umt5", {})],
)
def test_t5_without_its_decoder(tmp_path, cache, kind, options):
    file, model = t5(tmp_path, kind, **options)
    encoder = encoders.load(str(file))
    assert_same_states(encoder, model)
    theirs = transformers.T5Tokenizer(
        vocab=[*PIECES, *((f"<extra_id_{i}>", -10000.0) for i in (2, 1, 0))],
        _spm_precompiled_charsmap=CHARSMAP,
        extra_ids=3,
    )
    assert_same_tokens(encoder, theirs, ["A RED circle", "red<extra_id_1> a", "a</s>"])
    assert (encoder.tokenizer.begin, encoder.tokenizer.end, encoder.tokenizer.pad) == ((), 1, 0)
    assert verdict(cache) == "same"


@pytest.mark.parametrize("key", ["add_space_prefix", "remove_extra_whitespaces"])
def test_another_unigram_tokenizer_is_refused_by_its_key(tmp_path, monkeypatch, key):
    add = getattr(gguf.GGUFWriter, f"add_{key}" if "remove" in key else "add_add_space_prefix")
    name = add.__name__
    monkeypatch.setattr(gguf.GGUFWriter, name, lambda writer, value: add(writer, False))
    file, _ = t5(tmp_path, "t5encoder")
    with pytest.raises(LiditError, match=rf"tokenizer\.ggml\.{key}=False is not supported for T5"):
        encoders.load(str(file))
