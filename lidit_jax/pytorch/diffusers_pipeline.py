"""Diffusers pipeline around an exported model.

pipe = DiffusionPipeline.from_pretrained(OUT, custom_pipeline=OUT, trust_remote_code=True)
pipe("a red circle", generator=torch.Generator().manual_seed(0)).images[0]
"""

from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from PIL import Image
from torch import Generator, randn

# The export puts it beside this file.
from .lidit_torch import LIDiT  # pyright: ignore[reportMissingImports]


class LIDiTPipeline(DiffusionPipeline):
    """Diffusers pipeline that wraps `lidit_torch.LIDiT`."""

    def __init__(self, model: LIDiT | None = None):
        super().__init__()
        self.register_modules(model=model)

    def register_to_config(self, **entries):
        """Load the model here, where diffusers first gives the path of the pipeline."""
        super().register_to_config(**entries)
        folder = entries.get("_name_or_path")
        if folder and getattr(self, "model", None) is None:
            self.register_modules(model=LIDiT.from_pretrained(folder))

    def __call__(
        self,
        prompt: str | list[str],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: Generator | None = None,
        seed: int = 0,
    ) -> ImagePipelineOutput:
        """Generate one image per prompt.

        Args:
          prompt: text of the image.
          height: in pixels; None, here and below, for the model's default.
          width: in pixels.
          num_inference_steps: denoising steps.
          guidance_scale: 1 switches guidance off.
          generator: of the noise; None gives image i the noise of seed + i, as in lidit-jax.
          seed: see `generator`.
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        config = self.model.config
        size = (height or config.sampling.size, width or config.sampling.size)
        noise = None
        if generator is not None:
            shape = (*(side // config.downsample for side in size), config.channels)
            noise = randn(len(prompts), *shape, generator=generator, device=generator.device)
        images = self.model(prompts, size, num_inference_steps, guidance_scale, seed, noise)
        return ImagePipelineOutput([Image.fromarray(image) for image in images.cpu().numpy()])
