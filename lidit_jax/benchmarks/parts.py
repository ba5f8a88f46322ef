"""Parts of `lidit bench all` by priority: what each measures, and its time limit."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lidit_jax.benchmarks.fitting import Fit, fit
from lidit_jax.benchmarks.part_runner import Part, part_command
from lidit_jax.benchmarks.step import recipe_of
from lidit_jax.benchmarks.workload import Settings
from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import GIB

_TOKENS = 16_384
"""Image tokens per step: enough to make the optimizer's share of the time small."""
_DEPTH = 4
"""Blocks when compared with PyTorch: either framework compiles each for 10 seconds or more per
core."""
_SHARE = 0.8
"""Fraction of memory that the planner may fill: its formula has not been verified on GPUs."""
_TINY = ("model.width=64", "model.heads=4", "data.image_size=32", "encoders.sources=('smollm2',)")


def device_part(*, tiny: bool) -> Part:
    """Return the first part, which describes the machine."""
    # Nine tenths of a GPU's memory, which a run may use; none of it is reserved.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.9"
    command = part_command("device", tiny=tiny)
    return Part("device", "Device", command, 3, 40, environment=environment)


def ordered_parts(device: Mapping[str, Any], tests: Path | None, *, tiny: bool) -> list[Part]:
    """Return all other parts, in order of priority.

    Args:
      device: facts of the first part; {} if it failed.
      tests: folder of the project's tests; None without them.
      tiny: whether to use sizes that CPUs compute in about two minutes.
    """
    common = {
        "platform": device.get("platform", "gpu"),
        "device": device.get("device", ""),
        "dtype": "bfloat16",
        "torch": device.get("platform") != "tpu",
        "rounds": 2 if tiny else 6,
        "count": 1 if tiny else 4,
        "tiny": tiny,
    }
    memory = device.get("memory") or 16 * GIB
    parts = [_attention(common), *_steps(common, memory, first=True)]
    if tests:
        parts.append(_tests(common, tests))
    sample = common | {"checkpoint": "demo", "batch": 1 if tiny else 16, "count": 1}
    limit = 120 if tiny else 60
    command = part_command("sample", **sample | {"dtype": "float32"})
    parts.append(
        Part(
            *("sample", "Sampling of the packaged demo against PyTorch", command, 20, limit),
            description=f"{sample['batch']} images, in float32 as the demo is configured",
        )
    )
    encode = common | {"encoder": "smollm2", "batch": 2 if tiny else 64}
    encode["tokens"] = 16 if tiny else 100
    command = part_command("encode", **encode)
    parts.append(
        Part(
            *(
                "encode",
                "Encoding prompts with a language model against PyTorch",
                command,
                20,
                limit,
            ),
            description=f"smollm2, {encode['batch']} prompts of up to {encode['tokens']} tokens",
        )
    )
    if not tiny:
        parts += _steps(common, memory, first=False)
    command = [sys.executable, "-m", "lidit_jax.cli", "doctor"]
    return [*parts, Part("doctor", "lidit doctor: report in logs.txt", command, 10, 40)]


def _attention(common: Mapping[str, Any]) -> Part:
    return Part(
        "attention",
        "Attention: the GPU's kernel against the reference",
        part_command("attention", **common),
        10,
        45,
        description="errors against the reference in float32; times at the shapes of lidit_1b",
        environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    )


def _steps(common: Mapping[str, Any], memory: float, *, first: bool) -> list[Part]:
    """Return the train steps of lidit_1b: those of high priority, or those for remaining time."""
    if common["tiny"]:
        return [_step(common, memory, "step_tiny", 32, _TINY, least=5, limit=110)]
    if first:
        return [
            _step(common, memory, "step_256", 256, (), least=30, limit=130),
            _step(common, memory, "step_1024", 1024, (), least=30, limit=130),
        ]
    wide = ("model.heads=9",)
    return [
        _step(common, memory, "step_1024_head128", 1024, wide, least=30, limit=120),
        _step(common, memory, "step_256_whole", 256, (), least=25, limit=100, alone=True),
    ]


def _step(
    common: Mapping[str, Any],
    memory: float,
    name: str,
    size: int,
    overrides: tuple[str, ...],
    *,
    least: float,
    limit: float,
    alone: bool = False,
) -> Part:
    """Return the part of one train step, as large as memory allows."""
    overrides = (f"data.image_size={size}", *overrides)
    wide = ", heads of 128 channels" if "model.heads=9" in overrides else ""
    title = f"Train step of lidit_1b at {size} px{wide}"
    title += ", all blocks" if alone else ", against torch.compile"
    try:
        chosen = step_fit(overrides, memory, tiny=common["tiny"], alone=alone)
    except LiditError as error:
        return Part(name, title, ["sh", "-c", f"echo {shlex.quote(str(error))}; false"], 0, 1)
    settings = {
        **common,
        "config": "lidit_1b",
        "overrides": [*overrides, *chosen.overrides],
        "batch": chosen.batch,
        "only": "lidit-jax" if alone else "",
        "share": "0.9" if alone else "0.5",
        "again": least,
    }
    return Part(
        name, title, part_command("step", **settings), least, limit, description=chosen.description
    )


def step_fit(
    overrides: tuple[str, ...], memory: float, *, tiny: bool = False, alone: bool = False
) -> Fit:
    """Return depth and batch of a train step of lidit_1b that fit into `memory`.

    Args:
      overrides: overrides of the recipe.
      memory: bytes that the planner may fill.
      tiny: whether to use one small batch.
      alone: whether PyTorch is not measured.

    Raises:
      LiditError: when nothing fits.
    """
    settings = Settings("step", "lidit_1b", overrides, dtype="bfloat16")
    config, streams = recipe_of(settings)
    largest = 2 if tiny else max(_TOKENS // config.image_tokens, 1)
    batches = sorted({max(largest >> i, 1) for i in range(7)}, reverse=True)
    if tiny:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, depth=2))
    return fit(
        config,
        streams,
        memory * (1 if tiny else _SHARE),
        batches,
        deepest=config.model.depth if alone else _DEPTH,
        shallowest=config.model.depth if alone else _DEPTH,
        beside_pytorch=not alone,
    )


def _tests(common: Mapping[str, Any], tests: Path) -> Part:
    marked = [f"{file}" for file in sorted(tests.rglob("test_*.py")) if "mark.gpu" in _text(file)]
    platforms = "cuda,cpu" if common["platform"] == "gpu" else common["platform"]
    settings = {"tests": marked, "platforms": platforms, "folder": f"{tests.parent}"}
    command = part_command("tests", **settings) if marked else ["true"]
    description = f"{len(marked)} files with the marker gpu"
    return Part(*("tests", "Tests that need a GPU", command, 10, 60), description=description)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")
