"""One contender of `train_step.py` in a process of its own: builds a train step, runs it on demand.

It answers on its standard output, one JSON object a line: first what it built, then the seconds of
each step it was asked for (`N` on its standard input), last its peak memory (end of input).
"""

import argparse
import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lidit_jax.config import Config
from lidit_jax.recipes import load_recipe

from .synthetic import Stream, empty_prompt, latent_shape, make_batch

Step = Callable[[dict[str, Any]], float]
"""One update on a batch; returns the loss."""

CONTENDERS = {
    "lidit-jax, jit, float32": ("jax", "float32", {}),
    "PyTorch, eager, float32": ("torch", "float32", {}),
    "PyTorch, compile, float32": ("torch", "float32", {"compiled": True}),
    "lidit-jax, jit, bfloat16": ("jax", "bfloat16", {}),
    "PyTorch, eager, bfloat16 autocast": ("torch", "bfloat16", {"bfloat16": True}),
    "PyTorch, compile, bfloat16 autocast": (
        "torch",
        "bfloat16",
        {"bfloat16": True, "compiled": True},
    ),
}


def jax_step(config: Config, streams: list[Stream]) -> tuple[Step, int]:
    """The train step of `lidit train`, and the number of parameters."""
    import flax.linen as nn
    import jax

    from lidit_jax.training.optimizers import make_optimizer
    from lidit_jax.training.state import create_state
    from lidit_jax.training.step import make_train_step

    from .synthetic_task import SyntheticTask

    task, optimizer = SyntheticTask(config, streams), make_optimizer(config)
    state = jax.jit(lambda: nn.unbox(create_state(task.init, optimizer, config)))()
    rng = np.random.default_rng(0)
    state = state.replace(
        params=jax.tree.map(lambda p: p + _noise(rng, p.shape), state.params),
    )
    compiled = jax.jit(make_train_step(task.loss, optimizer, config), donate_argnums=0)
    frozen = jax.device_put(task.frozen)

    def step(batch: dict[str, Any]) -> float:
        nonlocal state
        state, metrics = compiled(state, frozen, batch)
        jax.block_until_ready(state)
        return float(metrics["loss"].compute())

    return step, sum(leaf.size for leaf in jax.tree.leaves(state.params))


def torch_step(
    config: Config, streams: list[Stream], null: dict[str, Any], threads: int, **options: bool
) -> tuple[Step, int]:
    """The same step in PyTorch, and the number of parameters."""
    import torch

    from lidit_jax.weights.torch_model import LIDiTTransformer

    from ..torch_training import TorchTrainer

    def to_torch(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(to_torch, value))
        if value.dtype.name == "bfloat16":
            return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(value)

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = LIDiTTransformer(config.model, [s.width for s in streams], latent_shape(config)[-1])
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.from_numpy(_noise(rng, parameter.shape))
    null = {name: to_torch(value) for name, value in null.items()}
    trainer = TorchTrainer(model, config, [s.crop for s in streams], null, **options)

    def step(batch: dict[str, Any]) -> float:
        return trainer.step({name: to_torch(value) for name, value in batch.items()})

    return step, sum(parameter.numel() for parameter in model.parameters())


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """So that no gate is zero and no gradient underflows."""
    return 0.02 * rng.normal(size=shape).astype(np.float32)


def peak_memory() -> int:
    """Most resident memory of this process so far, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def main() -> None:
    """Serves one contender until its input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("--config", required=True)
    parser.add_argument("--override", action="append", default=[])
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--streams", required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()

    # Libraries print what they like; only the answers may reach the parent.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    framework, dtype, options = CONTENDERS[arguments.contender]
    config = load_recipe(arguments.config, arguments.override)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype))
    streams = [Stream.parse(text) for text in arguments.streams.split(",")]
    null = empty_prompt(streams)
    batches = [make_batch(config, streams, arguments.batch, seed) for seed in range(4)]
    start = time.perf_counter()
    if framework == "jax":
        step, parameters = jax_step(config, streams)
    else:
        step, parameters = torch_step(config, streams, null, arguments.threads, **options)
    loss = step(batches[0])
    built = {"first_step_seconds": time.perf_counter() - start, "parameters": parameters}
    print(json.dumps(built | {"loss": loss}), file=answers)

    count = 0
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            batch = batches[count % len(batches)]
            start = time.perf_counter()
            step(batch)
            seconds.append(time.perf_counter() - start)
            count += 1
        print(json.dumps(seconds), file=answers)
    print(json.dumps({"peak_bytes": peak_memory()}), file=answers)


if __name__ == "__main__":
    main()
