"""Plans by formula: topologies, memory, time, search, and the command."""

import dataclasses
import json

import pytest

from lidit_jax.cli import main
from lidit_jax.errors import LiditError
from lidit_jax.parallel import plan as plans
from lidit_jax.parallel.memory import estimate_memory, parameter_count
from lidit_jax.parallel.roofline import Split, Work, predict, validation
from lidit_jax.parallel.topologies import GENERATIONS, parse_topology
from lidit_jax.recipes import load_recipe

TEN = load_recipe("lidit_10b")
POD = parse_topology("v5p:8x8x16")


@pytest.fixture(scope="module", autouse=True)
def traced_once():
    """10B parameters are counted once, by tracing."""
    parameter_count(TEN, plans.describe_text(TEN, False).streams)


def plan(mesh="fsdp=256", topology=POD, config=TEN, **options):
    return plans.plan(config, topology, plans.parse_mesh(mesh, config, topology), **options)


@pytest.mark.parametrize(
    ("name", "chips"), [("v5p:8x8x16", 1024), ("v5e:16x16", 256), ("v6e:2x4", 8), ("v5p:2x2x1", 4)]
)
def test_topologies_are_named_by_their_sides(name, chips):
    topology = parse_topology(name)
    assert topology.chips == chips
    assert topology.name == name
    assert parse_topology(name, 2).chips == 2 * chips


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5p-256", "unknown TPU 'v5p-256', know v4, v5e, v5p"),
        ("v5e:3x5", "no v5e slice has this shape, the nearest is v5e:4x4 with 16 chips"),
        ("v5e:32x16", "the nearest is v5e:16x16 with 256 chips"),
        ("v5p:4x4x5", "the nearest is v5p:4x4x4 with 64 chips"),
        ("v5p", "no v5p slice has this shape"),
    ],
)
def test_a_topology_that_nobody_builds_names_the_nearest(name, message):
    with pytest.raises(LiditError) as refusal:
        parse_topology(name)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ("fsdp=48", "48 does not divide the 1024 chips of v5p:8x8x16, the nearest that does is 32"),
        ("tensor=8", "tensor=8 does not divide config.model.heads=44: the nearest that do are 4"),
        ("fsdp=512", "fsdp=512 does not divide config.model.width=2816: the nearest that do"),
        ("width=2", "write AXIS=SIZE with an axis of replica, data, fsdp, context, tensor"),
        ("data=2,fsdp=4", "2 x 4 x 1 x 1 devices are not the 1024 chips"),
    ],
)
def test_a_mesh_that_does_not_divide_names_the_nearest(mesh, message):
    with pytest.raises(LiditError) as refusal:
        plan(mesh)
    assert message in str(refusal.value)


def test_parameters_averages_and_moments_are_four_bytes_each_and_split():
    found = plan()
    a_chip = found.parameters / 256
    assert found.memory.parameters == found.memory.averages == 4 * a_chip
    assert found.memory.optimizer == 8 * a_chip
    halved = dataclasses.replace(
        TEN, optimizer=dataclasses.replace(TEN.optimizer, momentum_dtype="bfloat16")
    )
    assert plan(config=halved).memory.optimizer == 6 * a_chip
    assert plan("fsdp=64,tensor=4").memory.parameters == 4 * a_chip


def test_stronger_recomputation_keeps_less():
    def kept(remat):
        model = dataclasses.replace(TEN.model, remat=remat)
        config = dataclasses.replace(TEN, model=model)
        return estimate_memory(config, Split(data=4, fsdp=256), 1024, plan().text.streams).kept

    sizes = [kept(remat) for remat in ("none", "dots", "attention", "full", "offload")]
    assert sizes == sorted(sizes, reverse=True)
    assert kept("full") == 48 * 4 * 1024 * 2816 * 2, "a block's input: 4 images of 1024 tokens"


def test_text_costs_what_the_design_says():
    """Two LLMs of 7 to 8 billion parameters and 100 tokens: 3 TFLOP or 1.6 MB a sample."""
    text = plan().text
    assert text.encoding_flops == pytest.approx(3.1e12, rel=0.05)
    assert text.bytes_a_caption == pytest.approx(1.6e6, rel=0.05)
    online = plan(online=True)
    assert online.memory.encoders == 15e9 * 2 / 256
    assert online.seconds > plan().seconds


def test_published_runs_are_predicted_within_a_fifth():
    errors = {name: error for name, _, error in validation()}
    assert len(errors) == 6
    assert all(abs(error) < 0.2 for error in errors.values()), errors


def test_a_step_is_bound_by_what_takes_longest():
    """Large products by the matrix unit; tiny batches by the weights; slices by the network."""
    work = Work(1e18, 0.0, 3e18, 1e10, 48, 1e6, 2816, "none")
    bound = predict(work, POD, Split(data=4, fsdp=256))
    assert bound.mxu > 0.9 * bound.step
    assert bound.mfu < 0.86
    small = dataclasses.replace(work, dense=1e13, counted=3e13, tokens=1e3)
    few = predict(small, POD, Split(data=4, fsdp=256))
    assert few.step == few.ici_weights
    two = parse_topology("v5p:8x8x16", 2)
    split = Split(replica=2, data=4, fsdp=256)
    assert predict(small, two, split).step > few.step


def test_narrow_heads_leave_the_matrix_unit_idle():
    wide = Work(0.0, 1e17, 3e17, 1e10, 48, 1e6, 2816, "none")
    narrow = dataclasses.replace(wide, head_width=64)
    split = Split(data=4, fsdp=256)
    assert predict(narrow, POD, split).mxu == 2 * predict(wide, POD, split).mxu


@pytest.mark.parametrize("size", [512, 1024])
def test_a_search_ends_in_plans_that_fit_the_fastest_first(size):
    config = dataclasses.replace(TEN, data=dataclasses.replace(TEN.data, image_size=size))
    ranked = plans.search(config, POD)
    assert all(p.free >= 0.1 * GENERATIONS["v5p"].memory for p in ranked)
    assert [p.seconds for p in ranked] == sorted(p.seconds for p in ranked)
    assert ranked[0].prediction.mfu > 0.5


def test_the_command_prints_a_table_and_writes_json_and_a_picture(tmp_path, capsys):
    arguments = ["plan", "--config=lidit_10b", "--topology=v5p:8x8x16", "--mesh=fsdp=64,tensor=2"]
    files = [f"--json={tmp_path / 'plan.json'}", f"--png={tmp_path / 'plan.png'}"]
    assert main([*arguments, *files, "--price-per-chip-hour=2"]) == 0
    shown = capsys.readouterr().out
    assert "predicted step" in shown
    assert "MaxDiffusion Flux" in shown
    facts = json.loads((tmp_path / "plan.json").read_text())
    assert facts["chips"] == 1024
    assert facts["mesh"]["data"] == 8
    assert facts["prediction"]["cost"] == pytest.approx(2 * facts["prediction"]["chip_hours"])
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_a_plan_that_does_not_fit_says_by_how_much(capsys):
    arguments = ["plan", "--config=lidit_10b", "--topology=v5e:4x4"]
    assert main([*arguments, "--config.data.image_size=1024"]) == 1
    assert "GiB too much a chip" in capsys.readouterr().out
    assert main(["plan", "--config=lidit_10b", "--topology=v5e:5x5"]) == 2
    assert "lidit: error: --topology=v5e:5x5" in capsys.readouterr().err
