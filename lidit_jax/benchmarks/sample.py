"""Whole pictures from prompts: encoders, sampler with guidance, autoencoder."""

from __future__ import annotations

from lidit_jax.benchmarks.workload import Builder, Settings, Workload, torch_device, torch_finished

_PROMPTS = ("a red circle", "a blue square and a yellow triangle", "three green stars")


def ours(settings: Settings) -> Workload:
    """`Pipeline`, as `lidit sample` uses it."""
    from lidit_jax import Pipeline

    pipeline = Pipeline.from_checkpoint(settings.checkpoint)
    prompts = _prompts(settings)
    steps = pipeline.config.sampling.steps
    return Workload(lambda: pipeline(prompts, seed=0), settings.batch, about={"steps": steps})


def torchs(settings: Settings, *, compiled: bool = False) -> Workload:
    """The same model exported by `lidit convert to-torch`."""
    from pathlib import Path

    import torch

    from lidit_jax.weights.torch_parity import load_module

    folder = Path(settings.exported)
    model = load_module(folder / "lidit_torch.py").LIDiT.from_pretrained(folder).to(torch_device())
    if compiled:
        model.network = torch.compile(model.network)
    prompts = _prompts(settings)

    def run() -> None:
        model(prompts, seed=0)
        torch_finished()

    return Workload(run, settings.batch, about={"torch": torch.__version__})


def _prompts(settings: Settings) -> list[str]:
    return [_PROMPTS[i % len(_PROMPTS)] for i in range(settings.batch)]


CONTENDERS: dict[str, Builder] = {
    "lidit-jax": ours,
    "PyTorch, export": torchs,
    "PyTorch, export, compile": lambda settings: torchs(settings, compiled=True),
}
