"""What latents are normalized by: a checkpoint's numbers, if they fit and nobody wants others."""

import json

import numpy as np

from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.data.latent_statistics import (
    LatentStatistics,
    SavedStatistics,
    channel_statistics,
    statistics_to_use,
)

OURS = channel_statistics([np.linspace(-1, 1, 96, dtype=np.float16).reshape(2, 4, 4, 3)])
SAVED = SavedStatistics(
    LatentStatistics(np.array([0.1, 1 / 3, 1e-7]), np.array([0.5, 0.7, 0.9])), "a vae", "runs/first"
)


def test_statistics_are_those_of_each_channel():
    rng = np.random.default_rng(0)
    latents = (rng.normal(size=(50, 4, 4, 2)) * [2, 0.5] + [3, -1]).astype(np.float16)
    tall = np.full((3, 6, 2, 2), -1, np.float16)
    mean, std = channel_statistics([latents[:20], tall, latents[20:]])
    flat = np.concatenate([part.reshape(-1, 2).astype(np.float64) for part in (latents, tall)])
    np.testing.assert_allclose(mean, flat.mean(axis=0))
    np.testing.assert_allclose(std, flat.std(axis=0))
    constant = np.ones((3, 2, 2, 1), np.float16)
    assert channel_statistics([constant])[1] > 0, "a constant channel is not divided by zero"


def use(saved, choice="keep", autoencoder="a vae"):
    """The statistics, and what was told about them."""
    told = []
    return statistics_to_use(lambda: OURS, autoencoder, saved, choice, told.append), told


def equal(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_fresh_run_computes_them_and_says_nothing():
    statistics, told = use(None)
    assert equal(statistics, OURS)
    assert told == []


def test_those_of_the_checkpoint_are_kept_to_the_bit():
    mean, std = SAVED.statistics
    saved = Provenance(
        encoders=({"source": "an LLM", "layer": -3, "fingerprint": {}, "prefix": ""},),
        prefix_lengths=(0,),
        autoencoder="a vae",
        latent_mean=tuple(mean.tolist()),
        latent_std=tuple(std.tolist()),
    )
    stored = Provenance.from_json(json.loads(json.dumps(saved.to_json())))
    statistics, told = use(SavedStatistics.of(stored, "runs/first"))
    assert equal(statistics, SAVED.statistics)
    assert told == []


def test_an_autoencoder_remembers_none():
    assert SavedStatistics.of(Provenance(), "runs/vae") is None


def test_they_are_computed_anew_when_the_configuration_asks_and_it_is_told():
    statistics, (line,) = use(SAVED, "recompute")
    assert equal(statistics, OURS)
    assert line == (
        "latent statistics are not those of runs/first but computed anew "
        "(config.data.latent_statistics='recompute'): "
        "mean (0.100, 0.333, 0.000) -> (-0.021, 0.000, 0.021)"
    )


def test_those_of_another_autoencoder_do_not_fit_and_it_is_told():
    statistics, (line,) = use(SAVED, autoencoder="another vae")
    assert equal(statistics, OURS)
    assert "not those of runs/first but computed anew (it has another autoencoder): mean" in line
