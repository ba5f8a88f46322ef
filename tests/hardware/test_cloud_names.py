"""Slices and nodes by the names of clouds and people."""

import math

import pytest

from lidit_jax.errors import LiditError
from lidit_jax.hardware.cloud_names import describe_topology_name, standard_name
from lidit_jax.hardware.topologies import GENERATIONS, parse_topology, slice_shapes


@pytest.mark.parametrize(
    ("name", "standard"),
    [
        # Of these the number counts chips.
        ("v5e-1", "v5e:1x1"),
        ("v5e-64", "v5e:8x8"),
        ("v5litepod-64", "v5e:8x8"),
        ("V5E-256", "v5e:16x16"),
        ("v5e:64", "v5e:8x8"),
        ("v6e-8", "v6e:2x4"),
        ("v6e-64", "v6e:8x8"),
        # Of these it counts TensorCores, two a chip. The shapes are the cloud's defaults.
        ("v4-8", "v4:2x2x1"),
        ("v4-32", "v4:2x2x4"),
        ("v5p-8", "v5p:2x2x1"),
        ("v5p-128", "v5p:4x4x4"),
        ("v5p-256", "v5p:4x4x8"),
        ("v5p-1536", "v5p:8x8x12"),
        ("v5p-2048", "v5p:8x8x16"),
        ("v5p-12288", "v5p:16x16x24"),
        ("tpu7x-8", "tpu7x:2x2x1"),
        ("v7x-128", "tpu7x:4x4x4"),
        # GPUs: a node of up to 8, and full nodes.
        ("h100:8", "h100:8x1"),
        ("h100:2", "h100:2x1"),
        ("h100x8", "h100:8x1"),
        ("h100-8", "h100:8x1"),
        ("8xh100", "h100:8x1"),
        ("8 x H200", "h200:8x1"),
        ("32xh100", "h100:8x4"),
        # Names by sides stay, however the chip is spelled.
        ("v5p:8x8x16", "v5p:8x8x16"),
        ("h100:8x4", "h100:8x4"),
        ("v5litepod:4x4", "v5e:4x4"),
        ("H100:8x4", "h100:8x4"),
    ],
)
def test_a_name_that_counts_means_the_standard_shape(name, standard):
    assert standard_name(name) == standard


@pytest.mark.parametrize("chip", [name for name, one in GENERATIONS.items() if not one.is_gpu])
def test_every_number_of_chips_that_is_built_has_a_name(chip):
    cores = 2 if chip in ("v4", "v5p", "tpu7x") else 1
    for chips in {math.prod(shape) for shape in slice_shapes(GENERATIONS[chip])}:
        assert parse_topology(standard_name(f"{chip}-{cores * chips}")).chips == chips


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "v5p-100",
            "no v5p slice has 50 chips; nearest: v5p-64 (32 chips, v5p:2x4x4) and v5p-128 "
            "(64 chips, v5p:4x4x4)",
        ),
        ("v5p-7", "no v5p slice has 3.5 chips"),
        ("v5e-512", "no v5e slice has 512 chips; nearest: v5e-256 (256 chips, v5e:16x16)"),
        ("v5e-0", "nearest: v5e-1 (1 chip, v5e:1x1)"),
        ("v5p:256", "256 chips or 256 cores? Write the sides of the slice, such as v5p:4x8x8, or"),
        ("v5p:256", "the cloud's name, v5p-256"),
        ("h100:12", "12 GPUs do not fill nodes of 1, 2, 4, 8; nearest: h100:8x1 and h100:8x2"),
        ("3xh100", "nearest: h100:2x1 and h100:4x1"),
        ("h100:0", "nearest: h100:1x1"),
        (
            "v5-64",
            "unknown chip 'v5', known are v4, v5e, v5p, v6e, tpu7x, h100, h200: did you mean v5",
        ),
        ("a100:8", "unknown chip 'a100', known are v4"),
    ],
)
def test_a_number_that_nothing_has_names_the_nearest(name, message):
    with pytest.raises(LiditError) as refusal:
        standard_name(name)
    assert message in str(refusal.value)
    assert f"--topology={name}: " in str(refusal.value)


def test_what_is_no_count_is_left_to_the_names_by_sides():
    for text in ("pod", "v9:4x4", "v5p", "", "h100:8x4x2"):
        assert standard_name(text) == text


def test_the_answer_says_what_was_understood():
    assert describe_topology_name("v5p-256", "v5p:4x4x8") == "v5p-256: 128 chips, v5p:4x4x8"
    assert describe_topology_name("h100:1", "h100:1x1") == "h100:1: 1 GPU, h100:1x1"
