"""A tiny model with random weights, exported, and its pipeline."""

import numpy as np
import pytest

from lidit_jax import Pipeline
from lidit_jax.checkpoints.bundle import save_bundle
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.models.lidit import LIDiT
from tests.quick import random_parameters


@pytest.fixture(scope="module")
def exported(tiny_config, tmp_path_factory):
    """`exported(seed)`: the folder of a tiny model with random weights, like those of an export."""
    config = tiny_config("diffusion.resolution_shift=true")
    encoders = PromptEncoders(config.encoders)
    conditions, prefix_lengths = encoders.encode(["a"])
    provenance = Provenance(
        encoders=tuple(encoders.description),
        prefix_lengths=prefix_lengths,
        autoencoder="pixels",
        latent_mean=(0.1, 0.0, -0.1),
        latent_std=(0.5, 0.4, 0.5),
    )

    def export(seed=0):
        folder = tmp_path_factory.mktemp("models") / f"model-{seed}"
        inputs = np.zeros((1, 32, 32, 3)), np.zeros(1), *conditions, prefix_lengths
        params = random_parameters(LIDiT(config.model).init, *inputs, seed=seed)
        save_bundle(folder, params, config, provenance)
        return folder

    return export


@pytest.fixture(scope="module")
def folder(exported):
    return exported()


@pytest.fixture(scope="module")
def pipeline(folder):
    return Pipeline.from_checkpoint(folder)
