"""Depth and batch of a train step are those that two frameworks can hold at once."""

import pytest

from lidit_jax.benchmarks.fitting import planned, topology_of
from lidit_jax.benchmarks.parts import step_fit
from lidit_jax.benchmarks.step import recipe_of
from lidit_jax.benchmarks.workload import Settings
from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import GIB, parse_topology

H100 = 71.6 * GIB


@pytest.mark.parametrize(("size", "batch"), [(256, 64), (1024, 4)])
def test_an_h100_holds_both_frameworks(size, batch):
    """16,384 image tokens a step, four blocks, which compile in time."""
    fit = step_fit((f"data.image_size={size}",), H100)
    assert fit.batch == batch
    assert fit.depth == 4
    assert fit.jax_bytes + fit.torch_bytes <= 0.8 * H100
    assert fit.description.startswith(f"{fit.depth} of 28 blocks, {batch} images per step")
    unrolled = f"model.scan_unroll={fit.depth}"
    assert fit.overrides == (f"model.depth={fit.depth}", "model.remat=none", unrolled)


def test_alone_the_model_is_whole():
    fit = step_fit(("data.image_size=256",), H100, alone=True)
    assert (fit.depth, fit.torch_bytes) == (28, 0)
    assert fit.jax_bytes <= 0.8 * H100
    assert fit.description.startswith("all 28 blocks")


def test_less_memory_holds_less():
    small = step_fit(("data.image_size=256",), 22 * GIB)
    assert small.batch < 64
    assert small.depth >= 4
    with pytest.raises(LiditError, match=r"do not fit into 3\.2 GiB: measure on a"):
        step_fit(("data.image_size=256",), 4 * GIB)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100:1x1"),
        ("NVIDIA H200", "h200:1x1"),
        ("TPU v5 lite", "v5e:1x1"),
        ("TPU v5", "v5p:1x1x1"),
    ],
)
def test_the_planner_knows_the_device(kind, name):
    assert topology_of(kind) == parse_topology(name)


def test_other_devices_have_no_plan():
    assert topology_of("cpu") is None
    config, _ = recipe_of(Settings("step", "lidit_1b", ("model.depth=4",), dtype="bfloat16"))
    assert planned(config, "cpu") is None
    plan = planned(config, "NVIDIA H100 80GB HBM3")
    assert plan.topology.devices == 1
    assert plan.seconds > 0
