"""Weights stream from their files to their shards: where they should be, equal, and in bounds."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from safetensors.numpy import save_file

from lidit_jax.config.schema import MeshConfig
from lidit_jax.encoders.sharding import encoder_shardings
from lidit_jax.errors import LiditError
from lidit_jax.parallel.mesh import make_mesh
from lidit_jax.weights import huggingface, streaming
from lidit_jax.weights.tables import DECODER

WIDTH, FFN, LAYERS, WORDS = 16, 32, 3, 40
SHAPES = {
    "embedding": (WORDS, WIDTH),
    "layers/q": (LAYERS, WIDTH, WIDTH),
    "layers/down": (LAYERS, FFN, WIDTH),
    "layers/ffn_norm": (LAYERS, WIDTH),
    "final_norm": (WIDTH,),
}


@pytest.fixture
def saved(tmp_path) -> dict[str, np.ndarray]:
    """The tensors of a folder of two shards that cut through the blocks."""
    random = np.random.default_rng(0)
    shapes = {"model.embed_tokens.weight": (WORDS, WIDTH), "model.norm.weight": (WIDTH,)}
    for i in range(LAYERS):
        shapes[f"model.layers.{i}.self_attn.q_proj.weight"] = (WIDTH, WIDTH)
        shapes[f"model.layers.{i}.mlp.down_proj.weight"] = (WIDTH, FFN)
        shapes[f"model.layers.{i}.post_attention_layernorm.weight"] = (WIDTH,)
    tensors = {n: random.normal(size=s).astype(ml_dtypes.bfloat16) for n, s in shapes.items()}
    write(tmp_path, tensors)
    return tensors


def write(folder, tensors) -> None:
    names = list(tensors)
    index = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    for file in set(index.values()):
        save_file({name: tensors[name] for name in names if index[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def load(folder, dtype="float32", shardings=None) -> dict:
    files = huggingface.safetensors_files(folder)
    return huggingface.load_params(files, DECODER, SHAPES, dtype, shardings)


@pytest.mark.parametrize("sizes", [(1, 4, 2), (2, 2, 2), (1, 8, 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_shards_are_what_the_rules_say_and_equal_the_plain_load(tmp_path, saved, sizes, dtype):
    plain = load(tmp_path, dtype)
    shardings = encoder_shardings(SHAPES, make_mesh(MeshConfig(*sizes)))
    params = load(tmp_path, dtype, shardings)
    for path, sharding in shardings.items():
        here, there = params, plain
        for part in path.split("/"):
            here, there = here[part], there[part]
        weight = getattr(here, "values", here)
        assert weight.sharding == sharding, path
        jax.tree.map(np.testing.assert_array_equal, here, there)
    q = params["layers"]["q"]
    if dtype == "int8":
        assert q.scale.sharding.spec == PartitionSpec(None, "tensor")
    else:
        expected = saved["model.layers.1.self_attn.q_proj.weight"].T.astype(dtype)
        np.testing.assert_array_equal(q[1], expected)


def test_embeddings_arrive_in_pieces_of_rows(tmp_path, saved, monkeypatch):
    """Pieces of 6 of the 40 rows: the last one overlaps the one before."""
    monkeypatch.setattr(streaming, "_PIECE_BYTES", 6 * WIDTH * 2)
    shardings = encoder_shardings(SHAPES, make_mesh(MeshConfig(1, 4, 2)))
    for where in (None, shardings):
        embedding = load(tmp_path, "bfloat16", where)["embedding"]
        np.testing.assert_array_equal(embedding, saved["model.embed_tokens.weight"])


def test_without_a_mesh_parameters_stay_free_to_follow_other_arrays(tmp_path, saved):
    """A committed array could not be used beside arrays of a mesh."""
    assert not load(tmp_path)["final_norm"].committed


def test_float16_and_float64_are_cast_once(tmp_path, saved):
    for dtype in (np.float16, np.float64):
        tensors = {name: value.astype(dtype) for name, value in saved.items()}
        write(tmp_path, tensors)
        for result in ("float32", "bfloat16"):
            expected = tensors["model.norm.weight"].astype(np.float32).astype(result)
            np.testing.assert_array_equal(load(tmp_path, result)["final_norm"], expected)


FLOAT16 = """
import sys
from pathlib import Path
import jax
from jax.sharding import SingleDeviceSharding
from lidit_jax.weights import huggingface
from lidit_jax.weights.tables import DECODER

shapes = {"layers/down": (1, 8, 4)}
place = {"layers/down": SingleDeviceSharding(jax.devices()[0])}
files = huggingface.safetensors_files(Path(sys.argv[1]))
for dtype in ("float32", "bfloat16", "int8"):
    for shardings in (None, place):
        params = huggingface.load_params(files, DECODER, shapes, dtype, shardings)
        weight = params["layers"]["down"]
        weight = weight.values * weight.scale if dtype == "int8" else weight
        print(float(weight[0, 0, 0]))
"""


def test_float16_is_read_without_the_processors_instructions_for_it(tmp_path):
    """XLA itself cannot convert it there: `known_faults.HALF_PRECISION`."""
    name = "model.layers.0.mlp.down_proj.weight"
    save_file({name: np.full((4, 8), 1.5, np.float16)}, tmp_path / "model.safetensors")
    flags = f"--xla_cpu_max_isa=SSE4_2 {os.environ.get('XLA_FLAGS', '')}"
    result = subprocess.run(
        [sys.executable, "-c", FLOAT16, str(tmp_path)],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-300:]
    assert [float(line) for line in result.stdout.split()] == pytest.approx([1.5] * 6, rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, saved, value, dtype):
    for name in ("model.norm.weight", "model.layers.2.mlp.down_proj.weight"):
        saved[name][-1] = value
    write(tmp_path, saved)
    expected = rf"{tmp_path} holds NaN or infinity in 2 tensors \(model\..*, model\..*\): download"
    with pytest.raises(LiditError, match=expected):
        load(tmp_path, dtype)


def test_int8_keeps_linear_maps_in_bytes_and_the_rest_in_bfloat16(tmp_path, saved):
    params = load(tmp_path, "int8")
    down = params["layers"]["down"]
    assert (down.values.dtype, down.scale.shape) == (jnp.int8, (LAYERS, WIDTH))
    restored = down.values.astype(jnp.float32) * down.scale[:, None, :]
    for i in range(LAYERS):
        weight = saved[f"model.layers.{i}.mlp.down_proj.weight"].T.astype(np.float32)
        half_a_level = np.abs(weight).max(axis=0) / 127 / 2
        assert (np.abs(restored[i] - weight) <= half_a_level * 1.001).all()
    assert params["embedding"].dtype == params["layers"]["ffn_norm"].dtype == jnp.bfloat16


MEMORY = """
import sys
from pathlib import Path
import jax
from lidit_jax.weights import huggingface
from lidit_jax.weights.tables import DECODER
from tests.benchmarks.memory import PeakMemory

def load(folder, blocks):
    shapes = {"layers/down": (blocks, 4096, 1024)}
    files = huggingface.safetensors_files(Path(folder))
    return jax.block_until_ready(huggingface.load_params(files, DECODER, shapes, "float32"))

load(sys.argv[1], 2)  # the compiler's own memory
with PeakMemory() as peak:
    params = load(sys.argv[2], 24)
print(peak.grown - sum(leaf.nbytes for leaf in jax.tree.leaves(params)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_host_holds_a_few_tensors_beside_the_stacked_result(tmp_path):
    """24 blocks of 16 MiB as float32: a second copy would be 384 MiB, even in float16 192."""
    for folder, blocks in (("few", 2), ("all", 24)):
        block = np.ones((1024, 4096), np.float16)
        names = [f"model.layers.{i}.mlp.down_proj.weight" for i in range(blocks)]
        (tmp_path / folder).mkdir()
        save_file(dict.fromkeys(names, block), tmp_path / folder / "model.safetensors")
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "few"), str(tmp_path / "all")]
    beyond = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert beyond <= 128 * 2**20
