"""PNG files of `lidit sample`, with all settings as metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from lidit_jax.evaluation.images import captioned_grid
from lidit_jax.sampling import png_metadata
from lidit_jax.sampling.request import image_requests

if TYPE_CHECKING:
    import numpy as np

    from lidit_jax.commands.sample_inputs import SampleInputs
    from lidit_jax.sampling.pipeline import Pipeline


def write_images(
    images: np.ndarray,
    inputs: SampleInputs,
    pipeline: Pipeline,
    guide: Pipeline | None,
) -> None:
    """Write each image to its file, or all of them to one, with text chunks.

    Args:
      images: one per prompt, uint8 [B, H, W, 3].
      inputs: prompts, settings and files.
      pipeline: the pipeline that generated them.
      guide: the weaker model of autoguidance.
    """
    settings = pipeline.settings(**inputs.settings)
    per_image = dict(inputs.per_image)
    if per_image["guidance"] is None:
        per_image["guidance"] = settings.guidance
    requests = image_requests(inputs.prompts, **per_image)
    extra = inputs.canvas.chunks
    if guide is not None:
        extra |= {
            "weaker_checkpoint": inputs.guide_checkpoint,
            "weaker_sha256": guide.fingerprint,
        }
    common = {
        "checkpoint": inputs.checkpoint,
        "fingerprint": pipeline.fingerprint,
        "config": pipeline.config,
        "raw": inputs.raw,
    }
    if len(inputs.files) < len(images):
        extra |= {"images": len(images), "prompt": "\n".join(inputs.prompts)}
        text = png_metadata.chunks(requests[0], settings, **common, extra=extra)
        png_metadata.save(captioned_grid(images, inputs.prompts), inputs.files[0], text)
        return
    for file, image, request in zip(inputs.files, images, requests, strict=True):
        text = png_metadata.chunks(request, settings, **common, extra=extra)
        png_metadata.save(Image.fromarray(image), file, text)
