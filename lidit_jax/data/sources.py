"""The image source that a configuration names."""

from lidit_jax.config import Config
from lidit_jax.data.latents import ImageSource
from lidit_jax.data.scenes.source import SceneSource


def open_source(config: Config, split: str) -> ImageSource:
    """Captioned images for training ("train") or validation ("heldout").

    Raises:
      LiditError: when the source cannot be opened, or its size does not fit.
    """
    data = config.data
    records = data.train_records if split == "train" else data.validation_records
    captions = data.distinct_captions if split == "train" else 0
    return SceneSource(split, records, data.image_size, data.language, config.seed, captions)
