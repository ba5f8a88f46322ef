"""A tiny text-to-image model with random weights, as a bundle and exported to PyTorch."""

import dataclasses

import jax.numpy as jnp

from lidit_jax.checkpoints.bundle import save_bundle
from lidit_jax.checkpoints.opener import open_model
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.schema import Config
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.models import LIDiT
from lidit_jax.models.flops import token_shape
from lidit_jax.pytorch.export import export_torch

from ..quick import random_parameters
from ..tiny_encoders import WIDTH


def small(config: Config) -> Config:
    """The recipe's model, smaller still, with several layers of its first encoder."""
    refiner = dataclasses.replace(config.model.refiner, layer_mix="learned_average")
    model = dataclasses.replace(config.model, width=16, heads=2, depth=3, refiner=refiner)
    encoders = dataclasses.replace(config.encoders, layers=((-1, 1, -3), -1))
    return dataclasses.replace(config, model=model, encoders=encoders)


def make_bundle(folder, config, dtype="float32"):
    """Saves `LIDiT(config.model)` with random weights, none of them zero."""
    encoders = PromptEncoders(config.encoders)
    _, prefix_lengths = encoders.encode([""])
    streams = len(encoders.streams)
    channels = 3 if config.vae.source == "pixels" else config.vae.channels
    inputs = (
        jnp.zeros((1, config.model.patch, config.model.patch, channels)),
        jnp.zeros(1),
        [jnp.zeros((1, 1, *token_shape(WIDTH, layers))) for layers in encoders.layer_counts],
        [jnp.ones((1, 1), bool)] * streams,
        [0] * streams,
    )
    params = random_parameters(LIDiT(config.model).init, *inputs)
    provenance = Provenance(
        encoders=tuple(encoders.description),
        prefix_lengths=prefix_lengths,
        autoencoder="pixels",
        latent_mean=(0.1, -0.2, 0.0),
        latent_std=(0.5, 0.4, 0.3),
        step=8,
    )
    save_bundle(folder, params, config, provenance, dtype)
    return folder


def make_export(bundle, out, **options):
    """`lidit convert to-torch`, without the comparison."""
    out.mkdir(parents=True, exist_ok=True)
    export_torch(open_model(bundle), out, **options)
    return out
