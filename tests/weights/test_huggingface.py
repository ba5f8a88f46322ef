"""Folders of safetensors: sharded, bfloat16, incomplete and damaged ones."""

import json
import re

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from lidit_jax.errors import LiditError
from lidit_jax.weights import huggingface, streaming
from lidit_jax.weights.tables import DECODER

SHAPES = {
    "embedding": (5, 4),
    "layers/q": (2, 4, 6),
    "layers/ffn_norm": (2, 4),
    "final_norm": (4,),
}


def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {
        "model.embed_tokens.weight": (5, 4),
        "model.layers.0.self_attn.q_proj.weight": (6, 4),
        "model.layers.1.self_attn.q_proj.weight": (6, 4),
        "model.layers.0.post_attention_layernorm.weight": (4,),
        "model.layers.1.post_attention_layernorm.weight": (4,),
        "model.norm.weight": (4,),
    }
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def load(folder, dtype="float32", table=DECODER):
    return huggingface.load_params(huggingface.safetensors_files(folder), table, SHAPES, dtype)


def test_blocks_are_stacked_and_linear_maps_transposed(tmp_path):
    saved = tensors()
    save_file(saved, tmp_path / "model.safetensors")
    params = load(tmp_path)
    np.testing.assert_array_equal(params["embedding"], saved["model.embed_tokens.weight"])
    for i in range(2):
        weight = saved[f"model.layers.{i}.self_attn.q_proj.weight"]
        np.testing.assert_array_equal(params["layers"]["q"][i], weight.T)
    assert params["final_norm"].shape == (4,)


@pytest.mark.parametrize("prefix", ["", "language_model.", "model.language_model."])
def test_the_same_table_reads_trunks_and_llava_checkpoints(tmp_path, prefix):
    saved = {prefix + name.removeprefix("model."): value for name, value in tensors().items()}
    saved["vision_tower.embeddings.weight"] = np.zeros(3, np.float32)
    saved["language_model.lm_head.weight"] = np.zeros(3, np.float32)
    save_file(saved, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(load(tmp_path)["final_norm"], tensors()["model.norm.weight"])


def test_shards_and_bfloat16(tmp_path):
    saved = {name: value.astype(ml_dtypes.bfloat16) for name, value in tensors().items()}
    shards = {"a.safetensors": list(saved)[:3], "b.safetensors": list(saved)[3:]}
    for file, names in shards.items():
        save_file({name: saved[name] for name in names}, tmp_path / file)
    index = {name: file for file, names in shards.items() for name in names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    for dtype in ("bfloat16", "float32"):
        params = load(tmp_path, dtype)
        assert params["final_norm"].dtype == dtype
        np.testing.assert_array_equal(params["final_norm"], saved["model.norm.weight"])
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(LiditError, match=r"lacks b.safetensors: download the model again"):
        load(tmp_path)


def test_every_problem_is_reported_at_once(tmp_path):
    saved = tensors()
    del saved["model.layers.1.self_attn.q_proj.weight"]
    saved["model.norm.weight"] = np.zeros(7, np.float32)
    saved["model.layers.2.post_attention_layernorm.weight"] = np.zeros(4, np.float32)
    saved["surprise"] = np.zeros(1, np.float32)
    save_file(saved, tmp_path / "model.safetensors")
    with pytest.raises(LiditError) as raised:
        load(tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path} does not fit its config.json: 1 missing: layers/q[1]; ")
    assert "2 unexpected: model.layers.2.post_attention_layernorm.weight, surprise; " in message
    assert message.endswith("1 of the wrong shape: model.norm.weight is [7], not [4]")


def test_a_long_list_of_problems_is_cut(tmp_path):
    save_file({f"tensor{i}": np.zeros(1) for i in range(9)}, tmp_path / "model.safetensors")
    with pytest.raises(LiditError, match=r"9 unexpected: tensor0, .* and 4 more"):
        load(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_safetensors_are_named(tmp_path, kept):
    file = tmp_path / "model.safetensors"
    save_file(tensors(), file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(LiditError, match=re.escape(f"{file} is truncated or damaged")):
        load(tmp_path)


def test_pickles_are_never_opened(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(LiditError, match="pickled weights are never opened"):
        load(tmp_path)


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LiditError, match=r"config.json is not valid JSON"):
        huggingface.read_json(tmp_path / "config.json")


def test_an_index_that_points_out_of_its_folder_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    save_file(tensors(), tmp_path / "secret.safetensors")
    index = tmp_path / "model" / "model.safetensors.index.json"
    outside = ("../secret.safetensors", str(tmp_path / "secret.safetensors"), "a\\b.safetensors")
    for name in (*outside, "weights.pkl", ""):
        index.write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
        with pytest.raises(
            LiditError, match=r"is not a \.safetensors file of its folder: do not use"
        ):
            load(tmp_path / "model")
    for damaged in ({}, {"weight_map": []}, {"weight_map": {}}):
        index.write_text(json.dumps(damaged))
        with pytest.raises(LiditError, match="has no weight_map: download it again"):
            load(tmp_path / "model")
    index.write_text("[1]")
    with pytest.raises(LiditError, match="is not a JSON object: download it again"):
        load(tmp_path / "model")


def test_weights_that_are_no_floats_are_refused(tmp_path):
    """As a checkpoint quantized by someone's own scheme looks; skipped tensors may be anything."""
    saved = tensors() | {"lm_head.weight": np.zeros(3, np.int64)}
    save_file(saved, tmp_path / "model.safetensors")
    load(tmp_path)
    saved["model.norm.weight"] = np.zeros(4, np.int8)
    save_file(saved, tmp_path / "model.safetensors")
    with pytest.raises(LiditError, match=r"1 of the wrong type: model.norm.weight is I8, not a fl"):
        load(tmp_path)


def test_a_tensor_given_twice_is_refused(tmp_path):
    save_file(tensors(), tmp_path / "a.safetensors")
    save_file({"model.norm.weight": np.zeros(4, np.float32)}, tmp_path / "b.safetensors")
    with pytest.raises(LiditError, match=r"model.norm.weight is in .*a.safetensors and in b.safe"):
        load(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    save_file(tensors() | {"norm.weight": np.zeros(4, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(LiditError, match=r"1 given twice: norm.weight"):
        load(tmp_path)


def test_other_files_beside_the_model_are_left_alone(tmp_path):
    """An adapter, say; without `model.safetensors` every file counts."""
    save_file(tensors(), tmp_path / "model.safetensors")
    save_file({"adapter": np.zeros(3, np.float32)}, tmp_path / "adapter_model.safetensors")
    load(tmp_path)


def test_nothing_is_allocated_before_all_tensors_are_known_to_fit(tmp_path, monkeypatch):
    def allocate(*_):
        raise AssertionError("allocated")

    monkeypatch.setattr(streaming, "_allocate", allocate)
    save_file(tensors() | {"surprise": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(LiditError, match="1 unexpected: surprise"):
        load(tmp_path)
