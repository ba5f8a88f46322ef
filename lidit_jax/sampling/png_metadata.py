"""What a PNG remembers of how it was made, so that it can be made again."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from lidit_jax.config.schema import Config, SamplingConfig
    from lidit_jax.sampling.request import ImageRequest

PER_IMAGE = {
    "prompt": str,
    "seed": int,
    "guidance": float,
    "negative_prompt": str,
    "blend_with": str,
    "blend": float,
    "variation": float,
    "variation_seed": int,
}
"""What `Pipeline.__call__` takes for each image, and its type."""


_COMPUTED = ("model.dtype", "vae.tile", "vae.dtype")
"""Fields that change how the same weights are computed, and so the picture, a little."""


@dataclass(frozen=True)
class ImageRecord:
    """The text chunks of one PNG, read."""

    request: dict[str, Any]
    """The values of `PER_IMAGE`."""
    settings: dict[str, Any]
    """The values of `config.sampling`."""
    checkpoint: str
    """As it was named."""
    fingerprint: str
    """sha256 of its weights."""
    raw: bool
    """Whether the raw weights drew it instead of their moving average."""
    size: tuple[int, int]
    """Height and width."""
    guide: str = ""
    """The weaker checkpoint of autoguidance, as it was named."""
    guide_fingerprint: str = ""
    """sha256 of its weights; empty where an older version did not keep it."""
    source: str = ""
    """sha256 of the image and mask that it began from; empty: it began from noise."""
    strength: float = 1.0
    """How much of that image was redrawn."""
    computed: dict[str, str] = field(default_factory=dict)
    """How the weights were computed, as `computing` gives it; empty where an older version did not
    keep it."""


def computing(config: Config) -> dict[str, str]:
    """The values of the fields of `_COMPUTED` by their names; pixels need no decoding."""
    names = _COMPUTED if config.vae.source != "pixels" else _COMPUTED[:1]
    return {name: str(functools.reduce(getattr, name.split("."), config)) for name in names}


def chunks(
    request: ImageRequest,
    settings: SamplingConfig,
    *,
    checkpoint: str,
    fingerprint: str,
    config: Config,
    raw: bool,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The text chunks that describe an image.

    Args:
      request: what was asked for the image.
      settings: how it was sampled.
      checkpoint: the model as the user named it.
      fingerprint: sha256 of its weights.
      config: its configuration, of which the sha256 is kept.
      raw: whether its raw weights were used.
      extra: more chunks, such as the image that it began from.
    """
    values = {name: getattr(request, name) for name in PER_IMAGE}
    values |= {"checkpoint": checkpoint, "checkpoint_sha256": fingerprint}
    values |= {"config_sha256": hashlib.sha256(config.to_json().encode()).hexdigest()}
    values |= {"weights": "raw" if raw else "averaged"}
    values |= {k: v for k, v in dataclasses.asdict(settings).items() if k not in PER_IMAGE}
    values |= computing(config)
    # The name of a file may hold bytes that are no text; what it says of a model is only a hint.
    return {
        name: str(value).encode(errors="backslashreplace").decode()
        for name, value in (values | dict(extra or {})).items()
    }


def read(path: Path) -> ImageRecord:
    """The record in a PNG of `lidit sample`.

    Raises:
      LiditError: when the file is no such PNG.
    """
    from PIL import Image

    from lidit_jax.config.schema import SamplingConfig
    from lidit_jax.io.pictures import open_quietly

    try:
        with open_quietly(path) as image:
            text, size = dict(getattr(image, "text", {})), (image.height, image.width)
        if text.get("images", "1") != "1":
            raise LiditError(f"{path} is a grid of {text['images']}: name the PNG of one image")
        request = {name: kind(text[name]) for name, kind in PER_IMAGE.items()}
        settings = {
            each.name: type(each.default)(text[each.name])
            for each in dataclasses.fields(SamplingConfig)
            if each.name in text
        }
        return ImageRecord(
            request,
            settings,
            text["checkpoint"],
            text["checkpoint_sha256"],
            text["weights"] == "raw",
            size,
            text.get("weaker_checkpoint", ""),
            text.get("weaker_sha256", ""),
            text.get("image_sha256", ""),
            float(text.get("strength", 1.0)),
            {name: text[name] for name in _COMPUTED if name in text},
        )
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise LiditError(
            f"{path} is not a readable picture: name a PNG of `lidit sample`"
        ) from error
    except (KeyError, ValueError) as error:
        raise LiditError(
            f"{path} does not say how it was made (no {error}): name a PNG of `lidit sample`"
        ) from error


def save(image: Image.Image, path: Path, text: Mapping[str, str]) -> None:
    """Writes a PNG with text chunks; it appears complete or not at all."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, value in text.items():
        info.add_itxt(name, value)
    with atomic_file(path) as file:
        image.save(file, format="PNG", pnginfo=info)


def pixels_sha256(*arrays: np.ndarray | None) -> str:
    """sha256 of images and masks, to tell later whether they are the same."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is not None:
            digest.update(repr(array.shape).encode() + array.tobytes())
    return digest.hexdigest()
