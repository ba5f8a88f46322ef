"""The image source that a configuration names."""

from typing import Any

from lidit_jax.config.schema import Config
from lidit_jax.data.folder import FolderSource
from lidit_jax.data.latents import ImageSource
from lidit_jax.data.scenes.source import SceneSource
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import local_path

_VALIDATION_STRIDE = 20


class Part:
    """Some records of a source, renumbered from 0."""

    def __init__(self, source: ImageSource, indices: range):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record, with its new number."""
        return self._source[self._indices[index]] | {"index": index}

    def caption(self, index: int) -> str:
        """The caption of a record."""
        return self._source.caption(self._indices[index])

    def __repr__(self) -> str:
        return f"Part({self._source!r}, {self._indices!r})"


def open_source(config: Config, split: str) -> ImageSource:
    """Captioned images for training ("train") or validation ("heldout").

    Scenes hold out combinations. A folder of images, which may be too small to spare any, trains on
    all of them and validates on every twentieth.

    Raises:
      LiditError: when the source cannot be opened, or its size does not fit.
    """
    data = config.data
    if data.source == "folder":
        if not data.path:
            raise LiditError("config.data.path is empty: name the folder with the images")
        source = FolderSource(local_path(data.path), data.image_size)
        stride = 1 if split == "train" else _VALIDATION_STRIDE
        return Part(source, range(0, len(source), stride))
    if split == "heldout":
        records, captions, shares = data.validation_records, 0, ()
    else:
        records, captions, shares = data.train_records, data.distinct_captions, data.scene_shares
    size, language = data.image_size, data.language
    return SceneSource(split, records, size, language, config.seed, captions, shares)
