"""Draws `docs/pixart.png`: a random PixArt pipeline by diffusers and by this package.

`python -m tests.pytorch.pixart_picture` takes about half a minute.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from lidit_jax import Pipeline
from lidit_jax.pytorch.pixart import PixArtSource, import_pixart

from .tiny_pixart import picture, psnr, save_pipeline

PROMPT, SEED, SCALE, GAP = "a small cactus with a happy face in the desert", 3, 4, 8
OUT = Path(__file__).parents[2] / "docs" / "pixart.png"


def main() -> None:
    """Import the pipeline, draw with both, and write both pictures side by side."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, bundle = Path(temporary, "pipeline"), Path(temporary, "bundle")
        bundle.mkdir()
        source = PixArtSource(str(save_pipeline(folder)))
        import_pixart(source, bundle, dtype="float32", encoder_dtype="float32")
        ours = Pipeline.from_checkpoint(bundle)(PROMPT, seed=SEED)[0]
    theirs = picture(PROMPT, SEED)
    print(f"PSNR {psnr(ours, theirs):.1f} dB, largest difference {np.abs(ours - theirs).max():.0f}")
    gap = np.full((ours.shape[0], GAP // SCALE, 3), 255.0)
    both = np.concatenate([theirs, gap, ours], axis=1).astype(np.uint8)
    size = (SCALE * both.shape[1], SCALE * both.shape[0])
    Image.fromarray(both).resize(size, Image.Resampling.NEAREST).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
