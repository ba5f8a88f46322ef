"""PNG metadata with all settings of an image, so that it can be reproduced."""

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
"""Arguments of `Pipeline.__call__` that are set per image, and their types."""


_COMPUTED = ("model.dtype", "vae.tile", "vae.dtype")
"""Configuration fields of the arithmetic, which change an image slightly."""


@dataclass(frozen=True)
class ImageRecord:
    """Parsed text chunks of one PNG."""

    request: dict[str, Any]
    """Values of `PER_IMAGE`."""
    settings: dict[str, Any]
    """Values of `config.sampling`."""
    checkpoint: str
    """Checkpoint as the user named it."""
    fingerprint: str
    """sha256 of the checkpoint's weights."""
    raw: bool
    """Whether the raw weights were used instead of the EMA weights."""
    size: tuple[int, int]
    """Height and width in pixels."""
    guide: str = ""
    """The weaker checkpoint of autoguidance, as the user named it."""
    guide_fingerprint: str = ""
    """sha256 of its weights; empty if an older version did not store it."""
    source: str = ""
    """sha256 of the initial image and mask; empty for noise alone."""
    strength: float = 1.0
    """Strength: how much of the initial image was redrawn."""
    computed: dict[str, str] = field(default_factory=dict)
    """Values of `computing`; empty if an older version did not store them."""


def computing(config: Config) -> dict[str, str]:
    """Return the values of the fields of `_COMPUTED` by name; a pixel model has no decoder."""
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
    """Return the text chunks that describe an image.

    Args:
      request: the image's request.
      settings: its sampling settings.
      checkpoint: the model as the user named it.
      fingerprint: sha256 of its weights.
      config: its configuration, of which the sha256 is stored.
      raw: whether its raw weights were used.
      extra: more chunks, such as the digest of the initial image.
    """
    values = {name: getattr(request, name) for name in PER_IMAGE}
    values |= {"checkpoint": checkpoint, "checkpoint_sha256": fingerprint}
    values |= {"config_sha256": hashlib.sha256(config.to_json().encode()).hexdigest()}
    values |= {"weights": "raw" if raw else "averaged"}
    values |= {k: v for k, v in dataclasses.asdict(settings).items() if k not in PER_IMAGE}
    values |= computing(config)
    # A file name may hold bytes that are not text; as a reference to a model it is only a hint.
    return {
        name: str(value).encode(errors="backslashreplace").decode()
        for name, value in (values | dict(extra or {})).items()
    }


def read(path: Path) -> ImageRecord:
    """Read the metadata of a PNG of `lidit sample`.

    Raises:
      LiditError: when the file is not such a PNG.
    """
    from PIL import Image

    from lidit_jax.config.schema import SamplingConfig
    from lidit_jax.io.image_files import open_quietly

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
        raise LiditError(f"{path} is not a readable image: name a PNG of `lidit sample`") from error
    except (KeyError, ValueError) as error:
        raise LiditError(
            f"{path} does not record how it was made (no {error}): name a PNG of `lidit sample`"
        ) from error


def save(
    image: Image.Image, path: Path, text: Mapping[str, str], temporaries: Path | None = None
) -> None:
    """Write a PNG with text chunks atomically; for `temporaries` see `atomic_file`."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, value in text.items():
        info.add_itxt(name, value)
    with atomic_file(path, temporaries) as file:
        image.save(file, format="PNG", pnginfo=info)


def pixels_sha256(*arrays: np.ndarray | None) -> str:
    """Return the sha256 of images and masks, to compare them later."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is not None:
            digest.update(repr(array.shape).encode() + array.tobytes())
    return digest.hexdigest()
