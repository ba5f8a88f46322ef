"""Request for one image: its prompt and every other setting that is per image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lidit_jax.config.prompt_text import prompt_text
from lidit_jax.errors import LiditError
from lidit_jax.sampling.settings import check_scale
from lidit_jax.sampling.values import as_integer, as_list, is_single, number, text

TEXTS = ("prompt", "negative_prompt", "blend_with")
"""Fields of an `ImageRequest` that the text encoders read."""
_SEEDS = 2**32


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """Request for one image; with checkpoint and sampling settings it determines every pixel.

    Its texts are stored cleaned (`lidit_jax.config.text.clean_text`), as they are encoded.
    """

    prompt: str
    seed: int
    guidance: float
    """Guidance scale."""
    negative_prompt: str = ""
    """Text to guide away from, instead of the empty prompt."""
    blend_with: str = ""
    """A second prompt."""
    blend: float = 0.0
    """Weight of the second prompt, 0 to 1."""
    variation: float = 0.0
    """Interpolation from the noise of `seed` to that of `variation_seed`, 0 to 1."""
    variation_seed: int = 0

    def __post_init__(self):
        for name in TEXTS:
            object.__setattr__(self, name, prompt_text(name, getattr(self, name)))
        if not self.prompt:
            raise LiditError("a prompt is empty: describe an image")
        for name in ("seed", "variation_seed"):
            _check_seed(name, getattr(self, name))
        check_scale(self.guidance)
        for name in ("blend", "variation"):
            if not 0 <= getattr(self, name) <= 1:
                raise LiditError(f"{name} {getattr(self, name)}: must be from 0 to 1")
        if self.blend and not self.blend_with:
            raise LiditError(f"blend {self.blend} needs a second prompt: give blend_with")


_KINDS = {
    "seed": as_integer,
    "guidance": number,
    "negative_prompt": text,
    "blend_with": text,
    "blend": number,
    "variation": number,
    "variation_seed": as_integer,
}


def image_requests(
    prompts: str | Iterable[str],
    *,
    seed: int | np.integer | Sequence[int] | np.ndarray,
    **fields: Any,
) -> list[ImageRequest]:
    """Return one request per prompt.

    Args:
      prompts: a text, or a list, tuple, array or generator of texts.
      seed: seed of the first image, counting up from there modulo 2**32, or one per image.
      fields: of `ImageRequest`, one value for all images or one per image; also NumPy's numbers.

    Raises:
      LiditError: without prompts, for lists of another length, or a value that does not fit.
    """
    columns = {"prompt": as_list("prompts", [prompts] if is_single(prompts) else prompts, text)}
    count = len(columns["prompt"])
    if not count:
        raise LiditError("no prompt: describe an image")
    if seed is None:
        raise LiditError(
            "seed=None: give a number, so that the images can be drawn again; for new ones each "
            f"time draw one, as with random.randrange(2**32), from 0 to {_SEEDS - 1}"
        )
    if is_single(seed):
        first = as_integer("seed", seed)
        _check_seed("seed", first)
        seed = [(first + i) % _SEEDS for i in range(count)]
    fields = {"seed": seed, **fields}
    for name, values in fields.items():
        kind = _KINDS[name]
        if is_single(values):
            columns[name] = [kind(name, values)] * count
        else:
            columns[name] = as_list(name, values, kind)
        if len(columns[name]) != count:
            raise LiditError(
                f"{len(columns[name])} values of {name} for {count} prompts: give one each"
            )
    rows = zip(*columns.values(), strict=True)
    return [ImageRequest(**dict(zip(columns, row, strict=True))) for row in rows]


def _check_seed(name: str, seed: int) -> None:
    if not 0 <= seed < _SEEDS:
        raise LiditError(f"{name} {seed}: must be from 0 to {_SEEDS - 1}")
