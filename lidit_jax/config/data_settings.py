"""Settings of streamed data: record filters, image shapes, captions, augmentation and reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lidit_jax.config.values import Fraction, NotNegative, Positive, Range

Distance = Annotated[int, Range(lambda v: 0 <= v <= 8, "must be from 0 to 8 bits")]
Shapes = Annotated[int, Range(lambda v: 1 <= v <= 10, "must be from 1 to 10")]
Aspect = Annotated[float, Range(lambda v: 1.1 <= v <= 4, "must be from 1.1 to 4")]
Megapixels = Annotated[
    float, Range(lambda v: 0 < v <= 178.95, "must be greater than 0, and at most 178.95")
]
"""Images above Pillow's limit are not decoded."""
Policy = Literal["fail", "skip"]


@dataclass(frozen=True)
class FilterSettings:
    """Filters on the records of an index. 0 and empty mean no limit."""

    min_width: NotNegative[int] = 0
    """Smallest width in pixels of the upright image, as for all sizes here."""
    max_width: NotNegative[int] = 0
    min_height: NotNegative[int] = 0
    max_height: NotNegative[int] = 0
    min_area: NotNegative[int] = 0
    """Width times height, in pixels."""
    max_area: NotNegative[int] = 0
    min_aspect: NotNegative[float] = 0.0
    """Width divided by height."""
    max_aspect: NotNegative[float] = 0.0
    scores: tuple[str, ...] = ()
    """Conditions on numeric columns of the index: "aesthetic>=4.7", "watermark<0.5". Records that
    lack the number are removed."""
    min_caption_chars: Positive[int] = 1
    """Length of the shortest captions in use; records without any are removed."""
    captions_without: tuple[str, ...] = ()
    """Kinds of captions to exclude, of "url", "tags" and "few_letters"
    (`lidit_jax.data.caption_flags`)."""
    caption_scripts: tuple[str, ...] = ()
    """Scripts of captions to include, of "latin", "han" and "other"."""
    duplicates: Literal["keep", "exact", "near"] = "keep"
    """Which duplicates are removed: "exact" ones, of image and captions, or "near" ones, whose
    perceptual hashes differ by at most `duplicate_distance`."""
    duplicate_distance: Distance = 4
    """Largest Hamming distance of near duplicates' 64-bit perceptual hashes, in bits."""
    duplicate_kept: Literal["first", "largest"] = "largest"
    """Duplicate to keep: the first in the index or the largest image."""


@dataclass(frozen=True)
class BucketSettings:
    """Aspect-ratio buckets near one number of pixels; every batch has one shape."""

    shapes: Shapes = 9
    """Maximum number of shapes: the square and pairs of wide and tall ones; 1 for squares only."""
    aspect: Aspect = 2.0
    """Aspect ratio of the longest shapes."""


@dataclass(frozen=True)
class CaptionSettings:
    """Choice among several captions of a record."""

    columns: tuple[str, ...] = ()
    """Caption columns in use; empty: "caption", or the only one."""
    rates: tuple[float, ...] = ()
    """Relative sampling rate of each column; empty: equal rates. For records that lack columns, the
    rates of the others count."""


@dataclass(frozen=True)
class AugmentationSettings:
    """Random augmentation of images, drawn anew in each epoch; none by default, as in the paper."""

    flip: Fraction = 0.0
    """Share of images that are mirrored; captions that say "left" are then wrong."""
    random_crop: bool = False
    """Crop images to their bucket's shape at a random place instead of the center."""


@dataclass(frozen=True)
class ReadingSettings:
    """Handling of records that cannot be read.

    "fail" stops the run, "skip" substitutes another record of the same shape. "repair" decodes a
    damaged image as far as its data go, and skips those of which nothing can be decoded.
    """

    missing: Policy = "fail"
    """Records that are no longer where the index says."""
    damaged: Literal["fail", "skip", "repair"] = "skip"
    """Images that cannot be decoded, or only in part. The missing part of a repaired one is gray in
    a JPEG, otherwise black, of the palette's first color, or white in a transparent image."""
    too_large: Policy = "skip"
    """Images of more than `most_megapixels`."""
    bad_caption: Policy = "skip"
    """Captions with lone surrogates, or without text."""
    most_megapixels: Megapixels = 178.95
    """Largest image to decode, which takes 3 to 8 bytes per pixel, less for downscaled JPEGs."""
    skipped_fraction: Fraction = 0.01
    """Largest share of skipped records; the run stops above it. Repaired ones do not count."""
