"""HunyuanVideo's token refiner, from files in diffusers' layout, beside diffusers' own code."""

import copy
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTokenRefiner

from lidit_jax.cli import main
from lidit_jax.errors import LiditError
from lidit_jax.pytorch.hunyuan_refiner import load_hunyuan_refiner, load_refiner
from tests.numerics import EPSILON, SAME, assert_close, in_float64, rounding, to_float64

HEADS, HEAD_WIDTH, FEATURES = 4, 8, 24
CONFIG = {
    "num_attention_heads": HEADS,
    "attention_head_dim": HEAD_WIDTH,
    "num_refiner_layers": 2,
    "text_embed_dim": FEATURES,
}


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    refiner = HunyuanVideoTokenRefiner(FEATURES, HEADS, HEAD_WIDTH, num_layers=2).eval()
    with torch.no_grad():
        for name, parameter in refiner.named_parameters():
            matrix = parameter.ndim == 2
            scale = parameter.shape[1] ** -0.5 if matrix else 0.2
            parameter.copy_(scale * torch.randn_like(parameter))
            if "norm" in name and name.endswith("weight") and not matrix:
                parameter += 1
    return refiner


@pytest.fixture
def folder(theirs, tmp_path):
    """A transformer in two files with an index; most of it is not the refiner's."""
    refiner = {f"context_embedder.{k}": v.numpy() for k, v in theirs.state_dict().items()}
    rest = {"x_embedder.proj.weight": np.ones((3, 2), np.float32)}
    names = sorted(refiner)
    files = {
        "diffusion_pytorch_model-00001-of-00002.safetensors": {n: refiner[n] for n in names[::2]},
        "diffusion_pytorch_model-00002-of-00002.safetensors": rest
        | {n: refiner[n] for n in names[1::2]},
    }
    transformer = tmp_path / "pipeline" / "transformer"
    transformer.mkdir(parents=True)
    for name, tensors in files.items():
        safetensors.numpy.save_file(tensors, transformer / name)
    index = {"weight_map": {n: name for name, tensors in files.items() for n in tensors}}
    (transformer / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    (transformer / "config.json").write_text(json.dumps(CONFIG))
    return transformer


@pytest.mark.numeric
def test_equals_diffusers(theirs, folder, tmp_path):
    """Random weights, two blocks, masks of different lengths: the same function in float64.

    In float32 the angles of the time's sinusoids decide, not the sums: each is rounded twice, so
    that at t = 912 it is off by up to 912 epsilon, whoever computes it.
    """
    out = tmp_path / "refiner"
    assert main(["convert", "from-hf", "hunyuan-refiner", str(folder.parent), str(out)]) == 0
    refiner = load_refiner(out)
    rng = np.random.default_rng(1)
    features = rng.normal(size=(2, 7, FEATURES)).astype(np.float32)
    mask = np.arange(7) < np.array([[7], [4]])
    t = np.array([37.0, 912.0], np.float32)
    ours = jax.jit(refiner.module.apply)({"params": refiner.params}, features, mask, t)
    with in_float64(), torch.no_grad():
        inputs = map(torch.from_numpy, to_float64((features, t, mask)))
        exact = copy.deepcopy(theirs).double()(*inputs).numpy()[mask]
        variables = {"params": to_float64(refiner.params)}
        double = load_refiner(out).module.apply(variables, *to_float64((features, mask, t)))
        assert_close(double.tokens[mask], exact, SAME)
    assert_close(ours.tokens[mask], exact, rounding(HEADS * HEAD_WIDTH, 12) + t.max() * EPSILON)


def test_it_reads_what_it_needs_from_one_file_or_several(folder, tmp_path):
    several = load_hunyuan_refiner(folder)
    tensors = {}
    for file in folder.glob("*.safetensors"):
        tensors |= safetensors.numpy.load_file(file)
    single = tmp_path / "single"
    single.mkdir()
    safetensors.numpy.save_file(tensors, single / "diffusion_pytorch_model.safetensors")
    (single / "config.json").write_text(json.dumps(CONFIG))
    one = load_hunyuan_refiner(single / "diffusion_pytorch_model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, several.params, one.params)
    assert (one.config.pool, one.config.pool_raw, one.config.feature_norm) == (
        "prompt",
        True,
        "none",
    )
    assert one.config.own_time_embedder


def spoil(folder, **changes):
    """Changes tensors of the first file; None takes one away."""
    file = min(folder.glob("*.safetensors"))
    tensors = safetensors.numpy.load_file(file)
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    safetensors.numpy.save_file(tensors, file)


BIAS = "context_embedder.proj_in.bias"
FAULTS = {
    "missing": (None, "1 missing: projection/bias"),
    "shape": (np.ones(5, np.float32), f"1 of the wrong shape: {BIAS}"),
    "type": (np.ones(HEADS * HEAD_WIDTH, np.int32), f"1 of the wrong type: {BIAS}"),
    "NaN": (np.full(HEADS * HEAD_WIDTH, np.nan, np.float32), rf"NaN or infinity in 1 .*{BIAS}"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_tensors_are_named(name, folder):
    value, message = FAULTS[name]
    spoil(folder, **{BIAS: value})
    with pytest.raises(LiditError, match=message):
        load_hunyuan_refiner(folder)


def test_an_index_that_leads_out_of_the_folder(folder):
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {BIAS: "../../x.safetensors"}}))
    with pytest.raises(LiditError, match="do not use this model"):
        load_hunyuan_refiner(folder)


@pytest.mark.parametrize("name", ["model.pt", "model.bin", "model.ckpt"])
def test_pickles_are_never_opened(name, tmp_path, capsys):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    command = ["convert", "from-hf", "hunyuan-refiner", str(tmp_path / name), str(tmp_path / "o")]
    assert main(command) == 2
    assert "is never opened" in capsys.readouterr().err


def test_a_truncated_file(folder):
    file = min(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(LiditError, match="truncated or damaged"):
        load_hunyuan_refiner(folder)


def test_another_models_folder(folder, tmp_path):
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(LiditError, match="not that of a HunyuanVideo transformer"):
        load_hunyuan_refiner(folder)
