"""TPU slices and GPU nodes by name."""

import pytest

from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import larger_topologies, parse_topology


@pytest.mark.parametrize(
    ("name", "chips", "devices"),
    [
        ("v5p:8x8x16", 1024, 1024),
        ("v5e:16x16", 256, 256),
        ("v6e:2x4", 8, 8),
        ("v5p:2x2x1", 4, 4),
        ("tpu7x:4x4x4", 64, 128),
        ("h100:8x4", 32, 32),
        ("h200:1x1", 1, 1),
    ],
)
def test_topologies_are_named_by_their_sides(name, chips, devices):
    topology = parse_topology(name)
    assert (topology.name, topology.chips, topology.devices) == (name, chips, devices)


def test_slices_multiply_chips_and_gpus_have_none():
    assert parse_topology("v5p:8x8x16", 2).chips == 2048
    with pytest.raises(LiditError, match="GPUs form nodes, not slices: write h100:8xNODES"):
        parse_topology("h100:8x4", 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9p:4x4x4", "unknown chip 'v9p', known are v4, v5e, v5p"),
        ("v5e:3x5", "no v5e slice has this shape, the nearest is v5e:4x4 with 16 chips"),
        ("v5e:32x16", "the nearest is v5e:16x16 with 256 chips"),
        ("v5p:4x4x5", "the nearest is v5p:4x4x4 with 64 chips"),
        ("v5p", "no v5p slice has this shape"),
        ("h100:3x4", "write h100:GPUSxNODES with 1, 2, 4, 8 GPUs per node, such as h100:8x4"),
        ("h100:8", "write h100:GPUSxNODES"),
    ],
)
def test_a_topology_that_nobody_builds_names_the_nearest(name, message):
    with pytest.raises(LiditError) as refusal:
        parse_topology(name)
    assert message in str(refusal.value)


def test_larger_ones_come_in_powers_of_two():
    assert [t.name for t in larger_topologies(parse_topology("v5e:4x8"))] == [
        *("v5e:8x8", "v5e:8x16", "v5e:16x16"),
    ]
    assert larger_topologies(parse_topology("v5p:4x4x4"))[0].chips == 128
    assert larger_topologies(parse_topology("h100:8x4"))[0].name == "h100:8x8"


def test_small_slices_have_no_ring_and_gpus_share_the_adapters_of_a_node():
    small, large = parse_topology("v5p:2x2x1"), parse_topology("v5p:4x4x4")
    assert 2 * small.fast_bandwidth == large.fast_bandwidth
    assert large.wide_bandwidth(1) == 2 * large.fast_bandwidth
    node, nodes = parse_topology("h100:8x1"), parse_topology("h100:8x4")
    assert node.wide_bandwidth(0) == node.fast_bandwidth == nodes.fast_bandwidth == 450e9
    assert nodes.wide_bandwidth(0) == 8 * 50e9
