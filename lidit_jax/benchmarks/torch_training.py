"""Loss and train step in PyTorch, for the model in `lidit_jax/pytorch/model.py`."""

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lidit_jax.config.schema import Config
from lidit_jax.pytorch.layers import AdaLayerNormTable, AdaLayerNormZero


class Text(TypedDict):
    """Features [B, S_k, D_k] and masks [B, S_k] of each text stream."""

    features: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]


class Batch(Text):
    """Batch of training samples."""

    latent: Tensor
    """Latents [B, h, w, C]."""


def x0_velocity_loss(
    model: Callable[..., Tensor],
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    features: Sequence[Tensor],
    masks: Sequence[Tensor],
    prefix_lengths: Sequence[int],
) -> Tensor:
    """Return the rectified-flow loss of an x0-prediction, with the error measured in velocity.

    t is in [0, 1], 1 being noise; the divisor is at least 0.05 (JiT, arXiv 2511.13720).
    """
    share = t.view(-1, 1, 1, 1)
    prediction = model((1 - share) * x0 + share * noise, 1000 * t, features, masks, prefix_lengths)
    velocity_error = (prediction.float() - x0) / share.clamp(min=0.05)
    return velocity_error.square().mean()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups for AdamW: as in `training.optimizers`, weight decay applies to
    linear maps and convolutions, but not to biases, norms and the layers that produce adaLN
    vectors."""
    undecayed = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, AdaLayerNormZero | AdaLayerNormTable)
        for parameter in module.parameters()
    }
    decays = lambda parameter: parameter.ndim > 1 and id(parameter) not in undecayed  # noqa: E731
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if decays(p)], "weight_decay": weight_decay},
        {"params": [p for p in parameters if not decays(p)], "weight_decay": 0.0},
    ]


class TorchTrainer:
    """Trainer with caption dropout, loss, backward pass, clipping, AdamW and EMA weights.

    On GPUs convolutions are channels-last and autotuned, and float32 products use TF32, as in XLA.

    Args:
      model: a `LIDiTTransformer`.
      config: the recipe; flow with x0-prediction and the error in velocity.
      prefix_lengths: instruction tokens per stream.
      unconditional: features [1, S_k, D_k] and masks [1, S_k] of the empty prompt.
      compiled: whether `torch.compile` compiles the model.
      bfloat16: whether the forward pass runs under bfloat16 autocast.
    """

    def __init__(
        self,
        model: nn.Module,
        config: Config,
        prefix_lengths: Sequence[int],
        unconditional: Text,
        *,
        compiled: bool = False,
        bfloat16: bool = False,
    ):
        diffusion = config.diffusion
        objective = (diffusion.process, diffusion.prediction, diffusion.loss)
        assert objective == ("flow", "x0", "velocity"), "this is the only objective here"
        self.config, self.prefix_lengths, self.unconditional, self.bfloat16 = (
            config,
            prefix_lengths,
            unconditional,
            bfloat16,
        )
        self.device = next(model.parameters()).device
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
            # PyTorch's stubs lack this argument.
            model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.model = torch.compile(model) if compiled else model
        self.parameters: list[Tensor] = list(model.parameters())
        self.averages = [copy.deepcopy(p.detach()) for p in self.parameters]
        settings = config.optimizer
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, settings.weight_decay),
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            fused=True,
        )
        self.steps = 0

    def step(self, batch: Batch) -> Tensor:
        """Apply one update and return the loss, without waiting for it."""
        features, masks = self._drop_captions(batch["features"], batch["masks"])
        x0 = batch["latent"]
        t = torch.sigmoid(torch.randn(len(x0), device=self.device))
        shift = self.config.diffusion.shift
        t = shift * t / (1 + (shift - 1) * t)
        autocast = torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else None
        with autocast or contextlib.nullcontext():
            loss = x0_velocity_loss(
                self.model, x0, torch.randn_like(x0), t, features, masks, self.prefix_lengths
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.clip_norm)
        warmup = self.steps / max(self.config.optimizer.warmup_steps, 1)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimizer.learning_rate * min(warmup, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(self.config.training.ema_decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(self.averages, self.parameters, None)
        self.steps += 1
        return loss.detach()

    def _drop_captions(
        self, features: Sequence[Tensor], masks: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        drawn = torch.rand(len(features[0]), device=self.device)
        dropped = drawn < self.config.diffusion.caption_dropout

        def swap(given: Sequence[Tensor], empty: Sequence[Tensor]) -> list[Tensor]:
            return [
                torch.where(dropped.view(-1, *[1] * (a.ndim - 1)), b, a)
                for a, b in zip(given, empty, strict=True)
            ]

        return swap(features, self.unconditional["features"]), swap(
            masks, self.unconditional["masks"]
        )
