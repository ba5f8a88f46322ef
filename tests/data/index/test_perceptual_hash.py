"""Versions of one picture are near each other, other pictures are not."""

import io

import numpy as np
from PIL import Image

from lidit_jax.data.index.perceptual_hash import perceptual_hash
from lidit_jax.io.image_files import read_header


def scene(seed: int) -> Image.Image:
    """Soft noise: a few waves of large size."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)


def hashed(image: Image.Image, kind: str = "png", **options) -> int:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    stream.seek(0)
    header = read_header(stream, "x")
    stream.seek(0)
    return perceptual_hash(stream, header, "x")


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def test_scaling_and_compression_hardly_change_it():
    for seed in range(8):
        image = scene(seed)
        versions = [
            hashed(image, "jpeg", quality=60),
            hashed(image.resize((100, 75), Image.Resampling.LANCZOS)),
            hashed(image.convert("L")),
            hashed(image.resize((2560, 1920), Image.Resampling.BICUBIC), "jpeg", quality=90),
        ]
        assert max(distance(hashed(image), version) for version in versions) <= 6


def test_other_pictures_differ_in_many_bits():
    hashes = [hashed(scene(seed)) for seed in range(8)]
    pairs = [(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distance(a, b) for a, b in pairs) > 12


def test_a_transparent_picture_is_seen_on_white():
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert hashed(clear) == hashed(Image.new("RGB", (32, 32), "white")) == 0
