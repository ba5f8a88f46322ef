"""Settings of streamed data: which records are used, in which shapes, with which captions."""

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
"""Pillow decodes no larger ones."""
Policy = Literal["fail", "skip"]


@dataclass(frozen=True)
class FilterSettings:
    """Which records are used. 0 and empty stand for no limit."""

    min_width: NotNegative[int] = 0
    """In pixels, of the upright picture, as all sizes here."""
    max_width: NotNegative[int] = 0
    min_height: NotNegative[int] = 0
    max_height: NotNegative[int] = 0
    min_area: NotNegative[int] = 0
    """Width times height."""
    max_area: NotNegative[int] = 0
    min_aspect: NotNegative[float] = 0.0
    """Width over height."""
    max_aspect: NotNegative[float] = 0.0
    scores: tuple[str, ...] = ()
    """Conditions on numbers of the index: "aesthetic>=4.7", "watermark<0.5". A record without the
    number does not fulfill them."""
    min_caption_chars: Positive[int] = 1
    """Shorter captions are not used; a record without any other is left out."""
    captions_without: tuple[str, ...] = ()
    """Kinds of captions that are not used, of "url", "tags" and "few_letters"
    (`lidit_jax.data.caption_flags`)."""
    caption_scripts: tuple[str, ...] = ()
    """Scripts of the captions that are used, of "latin", "han" and "other"."""
    duplicates: Literal["keep", "exact", "near"] = "keep"
    """Which copies are left out: "exact" ones, of picture and captions, or "near" ones, whose
    perceptual hash differs by `duplicate_distance` or less."""
    duplicate_distance: Distance = 4
    """Bits of 64 by which the perceptual hashes of copies differ at most."""
    duplicate_kept: Literal["first", "largest"] = "largest"
    """Which of the copies stays."""


@dataclass(frozen=True)
class BucketSettings:
    """Shapes of pictures near one number of pixels; every batch has one shape."""

    shapes: Shapes = 9
    """Shapes at most: the square and pairs of wide and tall ones. 1 is for squares alone."""
    aspect: Aspect = 2.0
    """Aspect of the longest shapes."""


@dataclass(frozen=True)
class CaptionSettings:
    """Which caption of a record is read, where there are several."""

    columns: tuple[str, ...] = ("caption",)
    """Caption columns in use."""
    rates: tuple[float, ...] = ()
    """How often each is read; empty: all of them equally often. A record that lacks some divides
    its epochs among those that it has."""


@dataclass(frozen=True)
class AugmentationSettings:
    """Random changes of pictures, drawn anew in each epoch; none by default, as in the paper."""

    flip: Fraction = 0.0
    """Share of pictures that are mirrored; captions that say "left" are then wrong."""
    random_crop: bool = False
    """Cut pictures to their bucket's shape at a random place instead of both ends."""


@dataclass(frozen=True)
class ReadingSettings:
    """What happens to records that cannot be read, and who reads.

    "fail" stops the run, "skip" puts another record of the same shape in the place.
    """

    missing: Policy = "fail"
    """Records that are no longer where the index says."""
    damaged: Policy = "skip"
    """Pictures that cannot be decoded."""
    too_large: Policy = "skip"
    """Pictures of more than `most_megapixels`."""
    bad_caption: Policy = "skip"
    """Captions that hold halves of characters, or nothing."""
    most_megapixels: Megapixels = 178.95
    """Decoding takes 3 to 8 bytes a pixel, JPEGs that are reduced less."""
    skipped_fraction: Fraction = 0.01
    """Share of the records that may be skipped before the run stops."""
    workers: NotNegative[int] = 0
    """Processes of each host that read whole batches; 0 for threads."""
    threads: Positive[int] = 2
    """Threads that read whole batches, without processes."""
