"""Configuration of the training data: sources, filters, shapes, captions, encoding and reading."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lidit_jax.config.data_settings import (
    AugmentationSettings,
    BucketSettings,
    CaptionSettings,
    FilterSettings,
    ReadingSettings,
)
from lidit_jax.config.values import Fraction, NotNegative, Positive


@dataclass(frozen=True)
class DataConfig:
    """Images and captions."""

    source: str = "scenes"
    """ "scenes" (procedural, with ground truth), "folder" (a directory of captioned images), or
    another format of docs/data.md: "webdataset", "parquet", "array_record", "tfds", "classes", …"""
    path: str = ""
    """Where the images are; for source "index" the folder that `lidit data index` has written."""
    mixture: tuple[str, ...] = ()
    """Further sources that are mixed with the first within each batch, as "FORMAT:PATH" or
    "index:PATH"."""
    weights: tuple[float, ...] = ()
    """Relative sampling rate of each source, that of `path` first; empty: in proportion to the
    number of records."""
    filters: FilterSettings = field(default_factory=FilterSettings)
    image_size: Positive[int] = 64
    """Side of the square training images, in pixels. Images of other aspects have as many pixels,
    or up to 5% fewer."""
    buckets: BucketSettings = field(default_factory=BucketSettings)
    captions: CaptionSettings = field(default_factory=CaptionSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    validation_records: Positive[int] = 512
    """Number of records held out for the validation loss: at most one in twenty; scenes of
    combinations that training never shows."""
    train_records: Positive[int] = 50_000
    """Number of scenes generated for training."""
    distinct_captions: NotNegative[int] = 0
    """Distinct captions of the scenes, so that fewer need encoding; 0 for one per scene."""
    scene_fractions: tuple[float, ...] = ()
    """Shares of the tasks in `lidit_jax.data.scenes.sampling.MIXTURE`; empty for the defaults."""
    textured_fraction: Fraction = 0.15
    """Share of the scenes whose caption mentions a texture."""
    sized_fraction: Fraction = 0.15
    """Share of the scenes of one or two objects whose caption mentions a size."""
    caption_style: Literal["plain", "varied"] = "plain"
    """Style of the scenes' English captions: "plain", adjectives before nouns in a few templates,
    or "varied", half of them paraphrased (`lidit_jax.data.scenes.paraphrases`)."""
    language: Literal["en", "zh", "both"] = "en"
    """Language of the scenes' captions."""
    text_features: Literal["cached", "online"] = "cached"
    """When the frozen text encoders run: "cached", on all captions before training; "online",
    during training, whenever a caption is used."""
    text_storage: Literal["bfloat16", "int8"] = "bfloat16"
    """Type of cached text features; "int8", with a scale per token and layer, takes half the
    space."""
    latents: Literal["cached", "online"] = "cached"
    """When the frozen autoencoder encodes the images: "cached", all of them before training;
    "online", in the step, whenever an image is read."""
    latent_statistics: Literal["keep", "recompute"] = "keep"
    """Mean and standard deviation that normalize latents, a part of the model: "keep" those of the
    checkpoint that a run resumes or starts from; "recompute" them from the data at every start."""
    cache_missing: Literal["build", "refuse"] = "build"
    """What training does without complete cached latents and text features: "build" them first,
    as `lidit cache` does, or "refuse" to start."""
    cache_dir: str = ""
    """Folder of indexes, cached latents and cached text features, which all hosts share; it may be
    in a bucket. Empty: `~/.cache/lidit`."""
    reading: ReadingSettings = field(default_factory=ReadingSettings)
    workers: NotNegative[int] = 0
    """Processes per host that read and decode whole batches, and scan new sources; 0 for threads.
    Batches do not depend on it."""
    encode_steps: Positive[int] = 1
    """Number of steps whose captions are encoded in one call, "online". More steps mean that a
    sharded encoder gathers its weights less often."""
