"""Every field of PixArt's JSON files is followed, has no effect, or is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from diffusers import DPMSolverMultistepScheduler

from lidit_jax.diffusion import process as processes
from lidit_jax.diffusion.samplers import Sampler, solver_tables
from lidit_jax.errors import LiditError
from lidit_jax.pytorch.pixart_config import read_pipeline, read_scheduler, read_transformer

from .tiny_pixart import PUBLISHED, transformer

LEGACY = {
    "_class_name": "Transformer2DModel",
    "_diffusers_version": "0.22.0.dev0",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "attention_type": "default",
    "caption_channels": 4096,
    "cross_attention_dim": 1152,
    "double_self_attention": False,
    "dropout": 0.0,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_single",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 128,
    "upcast_attention": False,
    "use_linear_projection": False,
}
"""Fields of a transformer saved by diffusers 0.22, before it had a class of its own."""
FILE = Path("some/config.json")
SCHEDULER = {"_class_name": "DPMSolverMultistepScheduler"}


def read(**changes):
    return read_transformer(LEGACY | changes, FILE, 8, "float32")


def test_a_transformer_of_an_old_diffusers_is_that_of_1024_px():
    network = read()
    model = network.model
    assert (model.width, model.depth, model.heads, model.patch) == (1152, 28, 16, 2)
    assert (model.sincos_extent, model.sincos_order) == (32.0, "column_first")
    assert model.size_embedding == 8
    assert (network.channels, network.variance, network.feature_width) == (4, True, 4096)


@pytest.mark.parametrize(
    ("name", "extent"),
    [
        ("alpha-256", 16),
        ("alpha-512", 32),
        ("alpha-1024", 32),
        ("sigma-256", 32),
        ("sigma-512", 32),
        ("sigma-1024", 32),
        ("sigma-2048", 32),
    ],
)
def test_positions_of_published_models(name, extent):
    changes = {key: value for key, value in PUBLISHED[name].items() if value is not None}
    assert read(**changes).model.sincos_extent == extent


def test_every_field_that_diffusers_saves_is_known():
    saved = dict(transformer(sample_size=32).config)
    read_transformer(saved | {"_class_name": "PixArtTransformer2DModel"}, FILE, 8, "float32")
    scheduler = DPMSolverMultistepScheduler()
    read_scheduler(json.loads(scheduler.to_json_string()), FILE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"norm_type": "ada_norm"},
            "norm_type='ada_norm' is not supported, only 'ada_norm_single'",
        ),
        ({"_class_name": "DiTTransformer2DModel"}, "_class_name="),
        ({"caption_channels": None}, "caption_channels=None: must be a whole number"),
        ({"interpolation_scale": 0}, "interpolation_scale=0.0: must be greater than 0"),
        ({"out_channels": 12}, "out_channels=12 is not supported, only 4, 8"),
        ({"cross_attention_dim": 768}, "cross_attention_dim=768"),
        ({"attention_bias": False}, "attention_bias=False"),
        ({"activation_fn": "geglu"}, "activation_fn='geglu'"),
        ({"norm_eps": 1e-5}, "norm_eps=1e-05"),
        ({"kv_compress": 2}, "kv_compress: not a field of PixArt that is supported"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(changes, message):
    with pytest.raises(LiditError, match=message):
        read(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"timestep_spacing": "trailing"},
        {"timestep_spacing": "leading"},
        {"use_karras_sigmas": True},
        {"beta_schedule": "scaled_linear", "beta_end": 0.012},
    ],
    ids=str,
)
def test_times_are_those_of_the_scheduler(changes):
    diffusion, sampling = read_scheduler(SCHEDULER | changes, FILE)
    assert (sampling.sampler, sampling.steps, sampling.guidance) == ("dpm++2m", 20, 4.5)
    reference = DPMSolverMultistepScheduler(**changes)
    reference.set_timesteps(20)
    sampler = Sampler(name=sampling.sampler, steps=20, spacing=sampling.spacing)
    times, _ = solver_tables(processes.from_config(diffusion), sampler)
    np.testing.assert_array_equal(times.times[:-1], reference.timesteps.numpy())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "LCMScheduler"}, "_class_name='LCMScheduler' is not supported"),
        ({"solver_order": 3}, "solver_order=3 is not supported, only 2"),
        ({"algorithm_type": "dpmsolver"}, "algorithm_type='dpmsolver'"),
        ({"timestep_spacing": "leading", "steps_offset": 1}, "steps_offset=1"),
        ({"final_sigmas_type": "sigma_min"}, "final_sigmas_type='sigma_min'"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas=True"),
        ({"prediction_type": "flow_prediction"}, "prediction_type='flow_prediction'"),
        ({"sigma_churn": 1}, "sigma_churn: not a field"),
    ],
)
def test_other_schedulers_are_refused_by_name(changes, message):
    with pytest.raises(LiditError, match=message):
        read_scheduler(SCHEDULER | changes, FILE)


def test_pipelines_cut_prompts_at_120_and_300_tokens_with_the_end_token():
    assert read_pipeline({"_class_name": "PixArtAlphaPipeline"}, FILE) == 119
    assert read_pipeline({"_class_name": "PixArtSigmaPipeline"}, FILE) == 299
    with pytest.raises(LiditError, match="only 'PixArtAlphaPipeline', 'PixArtSigmaPipeline'"):
        read_pipeline({"_class_name": "StableDiffusionPipeline"}, FILE)
