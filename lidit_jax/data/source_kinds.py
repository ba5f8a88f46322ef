"""Registry of sources of captioned images, by the value of `config.data.source`.

A new source is one more file, with a class that implements `ImageSource` and a `SourceKind` of it,
and a line here.
"""

from __future__ import annotations

from lidit_jax.config.schema import Config
from lidit_jax.data.folder import FOLDER
from lidit_jax.data.image_source import ImageSource, SourceKind
from lidit_jax.data.indexed_images import INDEXED
from lidit_jax.data.scenes.source import SCENES
from lidit_jax.errors import LiditError

SOURCES: dict[str, SourceKind] = {"scenes": SCENES, "folder": FOLDER, **INDEXED}
"""Values of `config.data.source`."""


def source_kind(config: Config) -> SourceKind:
    """Return the source kind of `config.data.source`.

    Raises:
      LiditError: when there is no such source, or it does not support the configuration.
    """
    name, training = config.data.source, config.training
    if name not in SOURCES:
        choices = ", ".join(map(repr, SOURCES))
        raise LiditError(f"config.data.source={name!r}: choose one of {choices}")
    if training.score_every and not SOURCES[name].has_truth:
        able = ", ".join(repr(other) for other, kind in SOURCES.items() if kind.has_truth)
        raise LiditError(
            f"config.training.score_every={training.score_every}: config.data.source={name!r} has "
            f"no truth to score images by; set it to 0, or choose {able}"
        )
    return SOURCES[name]


def open_image_source(config: Config, split: str) -> ImageSource:
    """Open the captioned images for training ("train") or validation ("heldout").

    Raises:
      LiditError: when the source cannot be opened, or its size does not fit.
    """
    return source_kind(config).open(config, split)
