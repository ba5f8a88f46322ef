"""Tiles divide what the kernel sees, waste little of it, and stay within the core's memory."""

import itertools

import pytest

from lidit_jax.attention.tiles import LANES, Tiles, choose_tiles, generation_of, padded


@pytest.mark.parametrize("generation", ["v4", "v5e", "v5p", "v6e", "tpu7x"])
def test_every_choice_is_one_that_the_kernel_takes(generation):
    lengths = (1, 36, 200, 256, 512, 1024, 4096, 4352)
    for queries, keys, width, size in itertools.product(
        lengths, lengths, (48, 72, 128, 256), (2, 4)
    ):
        tiles = choose_tiles(generation, width, queries, keys, size)
        assert tiles.key % tiles.key_compute == 0
        assert not any(tile % LANES for tile in (tiles.query, tiles.key, tiles.key_compute))
        for length, tile in ((queries, tiles.query), (keys, tiles.key)):
            assert padded(length, tile) - length < 2 * LANES or padded(length, tile) < 1.1 * length


def test_sizes_of_the_recipes():
    """4096 image tokens (1024 px) with 64-wide heads, and 512 tokens of text."""
    assert choose_tiles("v5p", 64, 4096, 4096, 2) == Tiles(1024, 2048, 512)
    assert choose_tiles("v5p", 64, 4096, 512, 2) == Tiles(1024, 512, 512)


@pytest.mark.parametrize(
    ("kind", "generation"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "tpu7x"),
        ("TPU of tomorrow", "v5e"),
    ],
)
def test_generations_by_device_kind(kind, generation):
    assert generation_of(kind) == generation
