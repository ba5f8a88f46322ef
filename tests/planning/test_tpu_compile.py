"""A small training step compiled for TPU slices that are not here, and what its program must be.

Unoptimized programs guard against regressions: they say what is computed and sent, not how fast.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

from lidit_jax.cli import main
from lidit_jax.parallel.mesh import AXES
from lidit_jax.planning.collectives import find_collectives
from lidit_jax.planning.hlo import parse_program
from lidit_jax.planning.hlo_cost import program_cost

pytest.importorskip("libtpu", reason="libtpu is not installed: pip install 'jax[tpu]' (Linux)")

MESHES = {
    "v5e:2x4": {"data": 2, "fsdp": 4},
    "v5p:2x2x2": {"data": 1, "fsdp": 2, "tensor": 2, "context": 2},
}
MIB = 2**20
GOLDEN = Path(__file__).with_name("golden_traffic.json")
CEILING = {"v5e:2x4": 290 * MIB, "v5p:2x2x2": 389 * MIB}
"""Arguments and temporaries of one chip, in bytes: measured, and a quarter more."""
USEFUL = {"v5e:2x4": 0.8, "v5p:2x2x2": 0.58}
"""The model's share of a program's operations, at the least. With the layout of the recipes it is
0.93 here; tensor and context leave text and convolutions whole, much of so small a model."""

# In a process of its own: other tests ask for exact float32 products, which are not bfloat16's.
COMPILE = """
import json, sys
from lidit_jax.config.schema import (
    Config, DataConfig, MeshConfig, ModelConfig, TrainingConfig, VAEConfig
)
from lidit_jax.models.flops import TextStream, forward_flops
from lidit_jax.planning.ahead_of_time import lower_train_step, topology_devices
from lidit_jax.parallel.mesh import make_mesh

topology, sizes, folder = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
config = Config(
    model=ModelConfig(width=256, depth=3, heads=4, remat="dots"),
    vae=VAEConfig(source="an autoencoder"),
    data=DataConfig(image_size=512),
    training=TrainingConfig(batch_size=16),
    mesh=MeshConfig(**sizes),
)
mesh = make_mesh(config.mesh, topology_devices(topology))
streams = [TextStream(512, 96, 32), TextStream(384, 96, 32)]
lowered = lower_train_step(config, mesh, streams)
open(f"{folder}/lowered", "w").write(lowered.as_text())
compiled = lowered.compile()
open(f"{folder}/compiled", "w").write(compiled.as_text())
memory = compiled.memory_analysis()
open(f"{folder}/bytes", "w").write(
    str(memory.argument_size_in_bytes + memory.temp_size_in_bytes)
)
forward = forward_flops(config.model, config.image_tokens, config.latent_shape[-1], streams)
open(f"{folder}/flops", "w").write(str(round(16 * forward.training / mesh.size)))
"""


@dataclass(frozen=True)
class LogicalMesh:
    """The two things that reading a program needs to know of its mesh."""

    devices: object
    axis_names: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    topology: str
    lowered: str
    compiled: str
    bytes: int
    flops: int
    """Of the model, of one device's part of a step, as the MFU counts them."""

    @cached_property
    def parsed(self):
        return parse_program(self.compiled)

    @cached_property
    def collectives(self):
        sizes = [MESHES[self.topology].get(axis, 1) for axis in AXES]
        return find_collectives(self.parsed, LogicalMesh(np.zeros(sizes), AXES))


def compile_program(topology, folder, repository):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_OPTIMIZATION_LEVEL": "O0"}
    arguments = [topology, json.dumps(MESHES[topology]), str(folder)]
    subprocess.run(
        [sys.executable, "-c", COMPILE, *arguments], env=environment, cwd=repository, check=True
    )
    texts = {
        name: (folder / name).read_text() for name in ("lowered", "compiled", "bytes", "flops")
    }
    numbers = int(texts["bytes"]), int(texts["flops"])
    return Program(topology, texts["lowered"], texts["compiled"], *numbers)


@pytest.fixture(scope="module", params=MESHES)
def program(request, tmp_path_factory, repository):
    return compile_program(request.param, tmp_path_factory.mktemp("program"), repository)


def test_both_attentions_of_a_block_are_pallas_kernels_forward_and_backward(program):
    """And the forward kernels run once: their results are kept for the backward pass."""
    calls = [line for line in program.compiled.splitlines() if '"tpu_custom_call"' in line]
    kernels = [re.search(r"%(splash_mha_\w+)", line)[1] for line in calls]
    assert sorted(kernels) == [
        "splash_mha_dkv_no_residuals",
        "splash_mha_dkv_segmented_no_residuals",
        "splash_mha_fwd_residuals",
        "splash_mha_fwd_segmented_residuals",
    ]


def test_only_the_output_layer_multiplies_in_float32(program):
    """Forward, and its two gradients; 64 numbers a patch."""
    exact = re.findall(
        r"stablehlo\.dot_general .*?: \(tensor<([\dx]*)xf32>, tensor<([\dx]*)xf32>\)",
        program.lowered,
    )
    # Of higher rank are only the row sums that the splash kernel's backward pass begins with.
    matrices = [pair for pair in exact if all(shape.count("x") <= 2 for shape in pair)]
    assert len(matrices) == 3
    assert all(any(shape.endswith("x64") for shape in pair) for pair in matrices)


def test_weights_of_blocks_are_gathered_inside_the_layer_loop_only(program):
    gathers = [c for c in program.collectives if c.kind == "all-gather" and "/blocks/" in c.source]
    assert [c for c in gathers if c.axes == {"fsdp"}]
    assert all(c.in_loop for c in gathers)


def test_each_axis_carries_what_it_should_in_the_layer_loop(program):
    """Weights over fsdp, gradients over data, partial sums over tensor, keys and values over
    context; nothing of any size over several axes at once."""
    large = [c for c in program.collectives if c.in_loop and c.size >= MIB // 16 and c.axes]
    split = {axis for axis, size in MESHES[program.topology].items() if size > 1}
    assert {axis for c in large for axis in c.axes} == split
    by_kind = {(c.kind, *sorted(c.axes)) for c in large}
    carried = {"fsdp": "all-gather", "data": "all-reduce", "tensor": "all-reduce"}
    carried["context"] = "all-gather"
    assert {(carried[axis], axis) for axis in split} <= by_kind
    assert ("all-reduce", "fsdp", "tensor") not in by_kind


def test_little_is_computed_beyond_the_model(program):
    """Under "dots", the recipes' policy. Kernels count as they run: two products forward, five
    backward, among them that of the scores once more."""
    cost = program_cost(program.parsed)
    assert cost.unknown == ()
    assert USEFUL[program.topology] <= program.flops / cost.flops <= 1


def test_memory_stays_below_its_ceiling(program):
    assert program.bytes < CEILING[program.topology]


def traffic(program):
    """The bytes of the largest collective of each kind, set of mesh axes and place."""
    largest = {}
    for found in program.collectives:
        axes = "+".join(sorted(found.axes)) or "unnamed axes"
        name = f"{found.kind} over {axes}, {'in blocks' if found.in_loop else 'outside'}"
        largest[name] = max(largest.get(name, 0), int(found.size))
    return largest


def test_a_step_sends_nothing_new_and_nothing_larger(program):
    """One accidental gather would show. `python -m tests.planning.test_tpu_compile` writes the file
    anew; read the difference before committing it."""
    allowed, found = json.loads(GOLDEN.read_text())[program.topology], traffic(program)
    assert found.keys() <= allowed.keys()
    for name, size in found.items():
        assert size <= allowed[name], name


def test_the_command_compiles_a_plan_and_writes_the_programs_text(tmp_path, repository):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_OPTIMIZATION_LEVEL": "O0"}
    command = [sys.executable, "-m", "lidit_jax.cli", "plan", "--config=demo", "--compile"]
    command += ["--config.model.depth=2", "--config.model.scan_unroll=1"]
    command += ["--topology=v5e:2x2", f"--hlo={tmp_path}/step.hlo", f"--json={tmp_path}/plan.json"]
    subprocess.run(command, env=environment, cwd=repository, check=True)
    facts = json.loads((tmp_path / "plan.json").read_text())
    assert (facts["recipe"], facts["batch"]) == ("demo", 32)
    compiled = facts["compiled"]
    assert compiled["total"] > facts["memory_bytes_a_device"]["parameters"]
    assert compiled["waiting_seconds"] > 0
    assert facts["prediction"]["mfu"] > compiled["mfu_waiting_included"] > 0
    text = (tmp_path / "step.hlo").read_text()
    assert len(text) == compiled["program_bytes"]
    assert find_collectives(text, LogicalMesh(np.zeros((1, 1, 4, 1, 1)), AXES))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=v4:2x2x2"], "the cores of a chip of v4:2x2x2 cannot be joined"),
        (["--topology=v5e:2x2", "--json=/proc/x/plan.json"], "--json: cannot write to /proc/x"),
    ],
)
def test_what_cannot_be_compiled_or_written_is_said_before_compiling(arguments, message, capsys):
    assert main(["plan", "--config=demo", "--compile", *arguments]) == 2
    assert message in capsys.readouterr().err


if __name__ == "__main__":
    golden = {}
    for topology in MESHES:
        with tempfile.TemporaryDirectory() as name:
            compiled = compile_program(topology, Path(name), Path(__file__).parents[2])
        golden[topology] = dict(sorted(traffic(compiled).items()))
    GOLDEN.write_text(json.dumps(golden, indent=2) + "\n")
