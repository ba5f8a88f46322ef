"""Every sampler against the scheduler of diffusers: same noise, same toy network, every step.

In float64 as far as the schedulers go: most of them compute each step in float32.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from lidit_jax.diffusion.process import DDPM, RectifiedFlow
from lidit_jax.diffusion.samplers import Sampler, sample, solver_tables
from tests.diffusion.toy import NOISE, toy_denoiser, toy_denoiser_torch

pytestmark = pytest.mark.numeric

PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
# The schedulers that work on x_t / signal and are told so by `scale_model_input`.
EXPLODING = (EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler)
SPACINGS = ("trailing", "linspace", "leading", "karras")
STEP_NOISE = np.random.default_rng(1).normal(size=(100, *NOISE.shape)).astype(np.float32)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def scheduler(kind, process, spacing="trailing", **options):
    """A scheduler of diffusers with the betas of `process`."""
    karras = {"use_karras_sigmas": True} if spacing == "karras" else {}
    reference = kind(
        beta_start=process.beta_start,
        beta_end=process.beta_end,
        beta_schedule={"cosine": "squaredcos_cap_v2"}.get(process.schedule, process.schedule),
        prediction_type=PREDICTIONS[process.prediction],
        timestep_spacing="linspace" if karras else spacing,
        **karras,
        **options,
    )
    # Its own products are float32: over 1000 steps they lose the last two digits.
    signal, _ = process.scales_of(np.arange(process.timesteps, dtype=float))
    reference.alphas_cumprod = torch.from_numpy(signal**2)
    return reference


def trajectory_of_diffusers(reference, monkeypatch, **step_options):
    """The sample after every evaluation, in our coordinates."""
    drawn = {}
    module = type(reference).__module__
    draw = lambda *_, **__: torch.from_numpy(STEP_NOISE[drawn["step"]]).double()  # noqa: E731
    monkeypatch.setattr(f"{module}.randn_tensor", draw, raising=False)
    exploding = isinstance(reference, EXPLODING)
    sigmas = getattr(reference, "sigmas", None)
    grow = lambda i: (1 + sigmas[i] ** 2) ** 0.5 if exploding else 1.0  # noqa: E731
    x, samples = torch.from_numpy(NOISE).double() * grow(0), []
    for i, time in enumerate(reference.timesteps):
        drawn["step"] = i
        seen = reference.scale_model_input(x, time) if exploding else x
        x = reference.step(toy_denoiser_torch(seen, time), time, x, **step_options).prev_sample
        samples.append((x / grow(i + 1)).numpy())
    return np.stack(samples)


def our_trajectory(process, sampler):
    with jax.enable_x64(True):
        result = sample(
            toy_denoiser,
            process,
            jnp.asarray(NOISE, jnp.float64),
            sampler,
            step_noise=lambda index: jnp.asarray(STEP_NOISE)[index],
            trace=True,
        )
        np.testing.assert_array_equal(result.x0, result.trajectory[-1])
        return np.asarray(result.trajectory)


def check(process, sampler, reference, monkeypatch, **step_options):
    reference.set_timesteps(sampler.steps)
    compare(process, sampler, reference, monkeypatch, **step_options)


def compare(process, sampler, reference, monkeypatch, **step_options):
    theirs = trajectory_of_diffusers(reference, monkeypatch, **step_options)
    ours = our_trajectory(process, sampler)
    assert ours.shape == theirs.shape
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_allclose(a, b, **TOLERANCE, err_msg=f"evaluation {i}")


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
@pytest.mark.parametrize("prediction", DDPM.spaces)
def test_ddpm(prediction, spacing, monkeypatch):
    process = DDPM(prediction=prediction)
    reference = scheduler(DDPMScheduler, process, spacing, clip_sample=False)
    check(process, Sampler(name="ddpm", steps=20, spacing=spacing), reference, monkeypatch)


@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("prediction", DDPM.spaces)
def test_ddim(prediction, spacing, eta, monkeypatch):
    process = DDPM(prediction=prediction)
    reference = scheduler(DDIMScheduler, process, spacing, clip_sample=False)
    sampler = Sampler(name="ddim", steps=20, spacing=spacing, eta=eta)
    check(process, sampler, reference, monkeypatch, eta=eta)


def test_ddim_from_noise_without_any_signal(monkeypatch):
    process = DDPM(prediction="v", schedule="scaled_linear", zero_terminal_snr=True)
    reference = scheduler(DDIMScheduler, process, clip_sample=False, rescale_betas_zero_snr=True)
    check(process, Sampler(name="ddim", steps=20), reference, monkeypatch)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_euler(prediction, spacing, monkeypatch):
    process = DDPM(prediction=prediction)
    reference = scheduler(EulerDiscreteScheduler, process, spacing)
    check(process, Sampler(name="euler", steps=13, spacing=spacing), reference, monkeypatch)


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_euler_ancestral(prediction, spacing, monkeypatch):
    process = DDPM(prediction=prediction)
    reference = scheduler(EulerAncestralDiscreteScheduler, process, spacing)
    sampler = Sampler(name="euler_ancestral", steps=13, spacing=spacing)
    check(process, sampler, reference, monkeypatch)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", DDPM.spaces)
def test_heun(prediction, spacing, monkeypatch):
    process = DDPM(prediction=prediction)
    reference = scheduler(HeunDiscreteScheduler, process, spacing)
    check(process, Sampler(name="heun", steps=9, spacing=spacing), reference, monkeypatch)


def test_heun_departs_where_noise_over_signal_falls_more_than_eightfold(monkeypatch):
    """From pure noise diffusers corrects Euler's step by a slope that knows the image a little, and
    counts it hundreds of times; ours stays Euler's there, and then is Heun's as theirs."""
    process = DDPM(prediction="v", schedule="cosine")
    steps = {"steps": 9, "spacing": "trailing"}
    reference = scheduler(HeunDiscreteScheduler, process)
    reference.set_timesteps(steps["steps"])
    theirs = trajectory_of_diffusers(reference, monkeypatch)
    ours = our_trajectory(process, Sampler(name="heun", **steps))
    euler = our_trajectory(process, Sampler(name="euler", **steps))
    assert len(ours) == len(theirs) - 1, "the correction is not evaluated"
    np.testing.assert_allclose(ours[0], euler[0], **TOLERANCE)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=1e-3, err_msg="before correction")
    assert np.abs(theirs[1] - ours[0]).max() > 1


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", DDPM.spaces)
def test_dpm_solver(prediction, spacing, monkeypatch):
    process = DDPM(prediction=prediction)
    reference = scheduler(DPMSolverMultistepScheduler, process, spacing)
    check(process, Sampler(name="dpm++2m", steps=20, spacing=spacing), reference, monkeypatch)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", DDPM.spaces)
def test_dpm_solver_sde(prediction, spacing, monkeypatch):
    process = DDPM(prediction=prediction, schedule="scaled_linear", beta_end=0.012)
    reference = scheduler(
        DPMSolverMultistepScheduler, process, spacing, algorithm_type="sde-dpmsolver++"
    )
    sampler = Sampler(name="dpm++2m_sde", steps=20, spacing=spacing)
    check(process, sampler, reference, monkeypatch)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", DDPM.spaces)
def test_unipc(prediction, spacing, monkeypatch):
    process = DDPM(prediction=prediction)
    reference = scheduler(UniPCMultistepScheduler, process, spacing)
    check(process, Sampler(name="unipc", steps=20, spacing=spacing), reference, monkeypatch)


MULTISTEP = {"dpm++2m": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}


@pytest.mark.parametrize("sampler", MULTISTEP)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_so_few_steps_that_orders_are_lowered(sampler, steps, monkeypatch):
    process = DDPM()
    check(
        process,
        Sampler(name=sampler, steps=steps),
        scheduler(MULTISTEP[sampler], process),
        monkeypatch,
    )


@pytest.mark.parametrize("sampler", MULTISTEP)
def test_cosine_schedule(sampler, monkeypatch):
    process = DDPM(prediction="v", schedule="cosine")
    reference = scheduler(MULTISTEP[sampler], process)
    check(process, Sampler(name=sampler, steps=20), reference, monkeypatch)


# --- flow --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_flow_euler(shift, steps, monkeypatch):
    reference = FlowMatchEulerDiscreteScheduler(shift=shift)
    reference.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    # The shift may be the process's own, or only that of the sampler.
    for process, own in ((RectifiedFlow(shift=shift), 0.0), (RectifiedFlow(), shift)):
        sampler = Sampler(name="euler", steps=steps, shift=own)
        compare(process, sampler, reference, monkeypatch)
        reference.set_begin_index(0)
        reference._step_index = None


@pytest.mark.parametrize("spacing", ["linspace", "karras"])
def test_flow_euler_spacings(spacing, monkeypatch):
    reference = FlowMatchEulerDiscreteScheduler(use_karras_sigmas=spacing == "karras")
    sampler = Sampler(name="euler", steps=11, spacing=spacing)
    check(RectifiedFlow(), sampler, reference, monkeypatch)


def test_flow_heun(monkeypatch):
    reference = FlowMatchHeunDiscreteScheduler()
    sampler = Sampler(name="heun", steps=9, spacing="linspace")
    check(RectifiedFlow(), sampler, reference, monkeypatch)


@pytest.mark.parametrize("shift", [1.0, 5.0])
@pytest.mark.parametrize("name", ["dpm++2m", "dpm++2m_sde", "unipc"])
def test_flow_multistep(name, shift, monkeypatch):
    """At our times, as these schedulers round theirs to integers under flow."""
    process = RectifiedFlow(shift=shift)
    sampler = Sampler(name=name, steps=12)
    options = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    if name == "unipc":
        reference = UniPCMultistepScheduler(**options)
    else:
        algorithm = {"dpm++2m": "dpmsolver++", "dpm++2m_sde": "sde-dpmsolver++"}[name]
        reference = DPMSolverMultistepScheduler(**options, algorithm_type=algorithm)
    reference.set_timesteps(sampler.steps)
    times = solver_tables(process, sampler)[0].times
    reference.timesteps = torch.from_numpy(1000 * times[:-1])
    # UniPC needs some signal at the first time; the schedulers assume the same 1e-6.
    first = 1 - 1e-6 if name == "unipc" else 1.0
    reference.sigmas = torch.from_numpy(np.append(first, times[1:]))
    compare(process, sampler, reference, monkeypatch)
