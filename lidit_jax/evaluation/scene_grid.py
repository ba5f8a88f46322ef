"""Grid of scored images with their prompts, framed green for a hit and red for a miss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lidit_jax.evaluation.images import captioned_grid
from lidit_jax.evaluation.scene_prompts import ScenePrompt
from lidit_jax.evaluation.scene_scorer import Verdict

HIT = "#18964a"
MISS = "#cd2828"


def hits_and_misses(
    images: Sequence[UInt8[np.ndarray, "H W 3"]],
    prompts: Sequence[ScenePrompt],
    verdicts: Sequence[Verdict],
    columns: int | None = None,
) -> Image.Image:
    """Draw the grid; `hits_and_misses(...).save("grid.png")` writes it.

    Args:
      images: images of one size.
      prompts: one per image, written below it.
      verdicts: one per image.
      columns: images per row; None for a near-square grid.
    """
    frames = [HIT if verdict.correct else MISS for verdict in verdicts]
    captions = [prompt.prompt for prompt in prompts]
    return captioned_grid(np.stack(list(images)), captions, frames, columns)
