"""Benchmark of sampling images from prompts: encoders, sampler with guidance, autoencoder.

All candidates take the same Euler steps from the same noise; PyTorch's use diffusers' scheduler
with the network exported by `lidit convert to-torch`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lidit_jax.benchmarks.workload import (
    Builder,
    Settings,
    Workload,
    synchronize_torch,
    torch_device,
)

_PROMPTS = ("a red circle", "a blue square and a yellow triangle", "three green stars")


def jax_workload(settings: Settings, *, cache_interval: int = 1) -> Workload:
    """Build the workload of `Pipeline`, as `lidit sample` uses it."""
    from lidit_jax.sampling.pipeline import Pipeline

    pipeline = Pipeline.from_checkpoint(settings.checkpoint)
    prompts = _prompts(settings)

    def run() -> np.ndarray:
        return pipeline(prompts, seed=0, sampler="euler", cache_interval=cache_interval)

    return Workload(run, settings.batch, about={"steps": pipeline.config.sampling.steps})


def torch_workload(settings: Settings, *, compiled: bool = False) -> Workload:
    """Build the workload of a diffusers-style sampling loop with the exported network."""
    import diffusers
    import torch
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    from lidit_jax.pytorch.export import MODULE
    from lidit_jax.pytorch.parity import load_module

    module, device = load_module(Path(settings.exported) / MODULE), torch_device()
    model = module.LIDiT.from_pretrained(settings.exported).to(device)
    network = torch.compile(model.network) if compiled else model.network
    config, prompts = model.config, _prompts(settings)
    count, side = len(prompts), config.sampling.size // config.downsample
    texts, limit = [*prompts, *[""] * count], config.lidit.config.encoders.max_prompt_tokens
    prefix_lengths = [len(stream.prefix) for stream in config.streams]
    space, guidance = config.schedule.prediction, config.sampling.guidance
    sigmas = [sigma for _, sigma, *_ in module.schedule(config.schedule, config.sampling.steps)]
    noise = [module.noise_of_seed(seed, (side, side, config.channels)) for seed in range(count)]
    noise = torch.stack(noise).to(device)
    mean, std = (noise.new_tensor(v) for v in (config.latents.mean, config.latents.std))
    # Any: its annotations allow cases that do not occur here, such as unset tables.
    scheduler: Any = FlowMatchEulerDiscreteScheduler()

    @torch.inference_mode()
    def run() -> np.ndarray:
        features, masks = zip(*(encoder(texts, limit) for encoder in model.encoders), strict=True)
        scheduler.set_timesteps(sigmas=sigmas, device=device)
        x = noise
        for sigma, time in zip(scheduler.sigmas, scheduler.timesteps, strict=False):
            both = network(
                torch.cat([x, x]), time.repeat(2 * count), features, masks, prefix_lengths
            )
            with_prompt, without = both.chunk(2)
            prediction = without + guidance * (with_prompt - without)
            velocity = (x - prediction) / sigma if space == "x0" else prediction
            x = scheduler.step(velocity, time, x).prev_sample
        image = model.decoder(x * std + mean).clamp(-1, 1)
        images = ((image + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        synchronize_torch()
        return images

    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    return Workload(run, settings.batch, about=versions)


def _prompts(settings: Settings) -> list[str]:
    return [_PROMPTS[i % len(_PROMPTS)] for i in range(settings.batch)]


CANDIDATES: dict[str, Builder] = {
    "lidit-jax": jax_workload,
    "PyTorch, diffusers": torch_workload,
    "PyTorch, diffusers, compile": lambda settings: torch_workload(settings, compiled=True),
    "lidit-jax, every 2nd step cached": lambda settings: jax_workload(settings, cache_interval=2),
}
