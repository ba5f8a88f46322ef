"""The sources of captioned images, by the name that a configuration gives.

A new source is one more file, with a class that follows `ImageSource` and a `SourceKind` of it, and
a line here.
"""

from __future__ import annotations

from lidit_jax.config.schema import Config
from lidit_jax.data.folder import FOLDER
from lidit_jax.data.image_source import ImageSource, SourceKind
from lidit_jax.data.scenes.source import SCENES
from lidit_jax.errors import LiditError

SOURCES: dict[str, SourceKind] = {"scenes": SCENES, "folder": FOLDER}
"""Values of `config.data.source`."""


def source_kind(config: Config) -> SourceKind:
    """What `config.data.source` names.

    Raises:
      LiditError: when there is no such source, or it cannot do what the configuration asks for.
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
    """Captioned images for training ("train") or validation ("heldout").

    Raises:
      LiditError: when the source cannot be opened, or its size does not fit.
    """
    return source_kind(config).open(config, split)
