"""What is asked for one image: its prompt and everything that may differ from image to image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lidit_jax.errors import LiditError
from lidit_jax.sampling.settings import check_scale

_SEEDS = 2**32


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """One image. With the checkpoint and its sampling settings it decides every pixel."""

    prompt: str
    seed: int
    guidance: float
    """Guidance scale."""
    negative_prompt: str = ""
    """What to move away from, instead of from the empty prompt."""
    blend_with: str = ""
    """A second prompt."""
    blend: float = 0.0
    """Weight of the second prompt, 0 to 1."""
    variation: float = 0.0
    """How far the noise is turned from that of `seed` to that of `variation_seed`, 0 to 1."""
    variation_seed: int = 0

    def __post_init__(self):
        if not self.prompt.strip():
            raise LiditError("a prompt is empty: say what you want to see")
        for name in ("seed", "variation_seed"):
            if not 0 <= getattr(self, name) < _SEEDS:
                raise LiditError(f"{name} {getattr(self, name)}: must be from 0 to {_SEEDS - 1}")
        check_scale(self.guidance)
        for name in ("blend", "variation"):
            if not 0 <= getattr(self, name) <= 1:
                raise LiditError(f"{name} {getattr(self, name)}: must be from 0 to 1")
        if self.blend and not self.blend_with.strip():
            raise LiditError(f"blend {self.blend} needs a second prompt: give blend_with")


def image_requests(
    prompts: Sequence[str], *, seed: int | Sequence[int], **fields: Any
) -> list[ImageRequest]:
    """One request a prompt.

    Args:
      prompts: what to see.
      seed: of the first image, counting up from there (and round at 2**32), or one an image.
      fields: of `ImageRequest`, one value for all images or a list of one each.

    Raises:
      LiditError: without prompts, for lists of another length, or a value out of range.
    """
    if isinstance(prompts, str):
        raise LiditError(f"prompts are a list, not one text: write [{prompts!r}]")
    if not prompts:
        raise LiditError("no prompt: say what you want to see")
    count = len(prompts)
    if isinstance(seed, int):
        if not 0 <= seed < _SEEDS:
            raise LiditError(f"seed {seed}: must be from 0 to {_SEEDS - 1}")
        seed = [(seed + i) % _SEEDS for i in range(count)]
    columns = {"prompt": prompts, "seed": seed} | fields
    for name, values in columns.items():
        if isinstance(values, (str, int, float)):
            columns[name] = [values] * count
        elif len(values) != count:
            raise LiditError(f"{len(values)} values of {name} for {count} prompts: give one each")
    rows = zip(*columns.values(), strict=True)
    return [ImageRequest(**dict(zip(columns, row, strict=True))) for row in rows]
