"""Benchmark of the whole train step: forward, backward, clipping, AdamW and EMA weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lidit_jax.benchmarks.synthetic import empty_prompt, make_batch
from lidit_jax.benchmarks.workload import (
    Builder,
    Settings,
    Workload,
    synchronize_torch,
    torch_device,
)
from lidit_jax.config.schema import Config
from lidit_jax.models.flops import TextStream, forward_flops

_BATCHES = 2
_NOISE = 0.02
"""Standard deviation of the noise added to all parameters, so that no gate is zero and no gradient
underflows."""


def recipe_of(settings: Settings) -> tuple[Config, tuple[TextStream, ...]]:
    """Return the recipe with an objective that both sides support, and its text streams."""
    config = settings.recipe()
    # All objectives cost the same.
    diffusion = dataclasses.replace(
        config.diffusion, process="flow", prediction="x0", loss="velocity", weighting="none"
    )
    training = dataclasses.replace(config.training, batch_size=settings.batch)
    config = dataclasses.replace(config, diffusion=diffusion, training=training)
    return config, text_streams(config, settings.tokens)


def text_streams(config: Config, tokens: int) -> tuple[TextStream, ...]:
    """Return the recipe's text streams for `tokens` prompt tokens."""
    from lidit_jax.planning.plan import describe_text

    return describe_text(config, prompt=tokens).streams


def jax_workload(settings: Settings) -> Workload:
    """Build the workload of the step that `lidit train` compiles, on one device."""
    import flax.linen as nn
    import jax

    from lidit_jax.benchmarks.synthetic_data import synthetic_data
    from lidit_jax.checkpoints.state import create_state
    from lidit_jax.training.lidit_task import LIDiTTask
    from lidit_jax.training.optimizers import make_optimizer, rate_of
    from lidit_jax.training.step import make_train_step

    config, streams = recipe_of(settings)
    task = LIDiTTask(config, synthetic_data(config, streams))
    optimizer = make_optimizer(config)

    def noisy_state() -> Any:
        state = nn.unbox(create_state(task.init, optimizer, config))
        leaves, structure = jax.tree.flatten(state.params)
        # The device's own generator, which compiles quickly.
        keys = jax.random.split(jax.random.key(1, impl="rbg"), len(leaves))
        noisy = [
            p + _NOISE * jax.random.normal(key, p.shape)
            for p, key in zip(leaves, keys, strict=True)
        ]
        return state.replace(params=jax.tree.unflatten(structure, noisy))

    # On the device: a host takes minutes to draw a billion numbers.
    state = jax.jit(noisy_state)()
    compiled = jax.jit(make_train_step(task.loss, config), donate_argnums=0)
    frozen, rate = jax.device_put((task.frozen, rate_of(config)))
    batches = jax.device_put(
        [make_batch(config, streams, settings.batch, seed) for seed in range(_BATCHES)]
    )
    turn = 0

    def run() -> None:
        nonlocal state, turn
        state, _ = compiled(state, frozen, batches[turn % _BATCHES], rate)
        jax.block_until_ready(state)
        turn += 1

    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return Workload(run, settings.batch, _flops(config, streams), {"parameters": count})


def torch_workload(settings: Settings, *, compiled: bool = False) -> Workload:
    """Build the workload of the same step of the same network in PyTorch."""
    import torch

    from lidit_jax.benchmarks.torch_training import Batch, Text, TorchTrainer
    from lidit_jax.pytorch.model import LIDiTTransformer

    config, streams = recipe_of(settings)
    device = torch_device()

    def to_torch(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(to_torch, value))
        if value.dtype.name == "bfloat16":
            return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16).to(device)
        return torch.from_numpy(value).to(device)

    torch.manual_seed(0)
    with torch.device(device), torch.no_grad():
        widths = [stream.mixed_width(config.model.refiner) for stream in streams]
        layers = [stream.layers for stream in streams]
        model = LIDiTTransformer(config.model, widths, config.latent_shape[-1], layers)
        for parameter in model.parameters():
            parameter += _NOISE * torch.randn_like(parameter)
    unconditional = Text(**{name: to_torch(value) for name, value in empty_prompt(streams).items()})
    half = settings.dtype == "bfloat16"
    prefix_lengths = [s.prefix_length for s in streams]
    trainer = TorchTrainer(
        model.to(device), config, prefix_lengths, unconditional, compiled=compiled, bfloat16=half
    )
    made = [make_batch(config, streams, settings.batch, seed) for seed in range(_BATCHES)]
    batches = [Batch(**{name: to_torch(value) for name, value in batch.items()}) for batch in made]
    turn = 0

    def run() -> None:
        nonlocal turn
        trainer.step(batches[turn % _BATCHES])
        synchronize_torch()
        turn += 1

    count = sum(parameter.numel() for parameter in model.parameters())
    return Workload(run, settings.batch, _flops(config, streams), {"parameters": count})


def _flops(config: Config, streams: Sequence[TextStream]) -> float:
    channels = config.latent_shape[-1]
    forward = forward_flops(config.model, config.image_tokens, channels, streams)
    return config.training.batch_size * forward.training


CANDIDATES: dict[str, Builder] = {
    "lidit-jax, jit": jax_workload,
    "PyTorch, eager": torch_workload,
    "PyTorch, compile": lambda settings: torch_workload(settings, compiled=True),
}
