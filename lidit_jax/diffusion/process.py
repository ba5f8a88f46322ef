"""Construction of the diffusion process that training, sampling and export share.

A process holds the noise schedule, the prediction space and the loss. There are two: `DDPM` (the
paper's) and `RectifiedFlow`.
"""

from __future__ import annotations

from lidit_jax.config.schema import DiffusionConfig
from lidit_jax.diffusion.base import Process, Times
from lidit_jax.diffusion.ddpm import DDPM
from lidit_jax.diffusion.flow import RectifiedFlow
from lidit_jax.diffusion.parameterization import Images
from lidit_jax.errors import LiditError

__all__ = ["DDPM", "Images", "Process", "RectifiedFlow", "Times", "from_config"]


def from_config(config: DiffusionConfig) -> Process:
    """Build the process that `config` describes.

    Raises:
      LiditError: for a prediction, loss space or weighting that the process does not support, or
        for a value out of range; names the field.
    """
    objective = {
        "prediction": config.prediction,
        "loss_space": config.loss,
        "weighting": config.weighting,
        "snr_gamma": config.snr_gamma,
    }
    if config.process == "flow":
        return RectifiedFlow(
            **objective,
            time_sampling=config.time_sampling,
            logit_mean=config.logit_mean,
            logit_std=config.logit_std,
            mode_scale=config.mode_scale,
            shift=config.shift,
        )
    if config.shift != 1:
        raise LiditError(
            f"config.diffusion.shift={config.shift}: DDPM has no time shift, "
            "set 1.0 or config.diffusion.process='flow'"
        )
    return DDPM(
        **objective,
        timesteps=config.timesteps,
        schedule=config.schedule,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        zero_terminal_snr=config.zero_terminal_snr,
    )
