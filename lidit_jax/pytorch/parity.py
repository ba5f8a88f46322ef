"""Parity check of an exported PyTorch model with the JAX model, by block and by sampled image.

PyTorch is optional and imported only here, to run the exported file.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from lidit_jax.config.schema import Config, ModelConfig
from lidit_jax.io.output import atomic_file
from lidit_jax.pytorch.export import MODULE, module_sampler

TOLERANCE = 1e-4
"""Largest allowed difference per block, over the rms of its values in PyTorch."""
MINIMUM_PSNR = 45.0
"""Least PSNR of the images, in dB."""
PROMPTS = ("a red circle", "three green stars to the left of a blue square")
_TIMES = (37.0, 912.0)


class Difference(NamedTuple):
    """Difference of one block: a row of the report."""

    component: str
    error: float
    """Largest absolute difference, over the rms of PyTorch's values."""
    required: bool = True
    """Whether `TOLERANCE` applies; it does not to encoders, which have their own tolerances."""


@dataclasses.dataclass(frozen=True)
class Parity:
    """Result of the parity check."""

    differences: list[Difference]
    psnr: float
    """PSNR of whole sampling runs, in dB; infinite for equal images."""
    steps: int
    dtype: str

    @property
    def passed(self) -> bool:
        """Whether every block and the images are within the limits."""
        rows = [row for row in self.differences if row.required]
        return all(row.error <= TOLERANCE for row in rows) and self.psnr >= MINIMUM_PSNR

    def table(self) -> str:
        """Format the result as a table."""
        lines = [f"{'component':<32} {'max error / rms':>16}  required"]
        lines += [
            f"{row.component:<32} {row.error:>16.1e}  {f'{TOLERANCE:.0e}' if row.required else '-'}"
            for row in self.differences
        ]
        psnr = "equal" if np.isinf(self.psnr) else f"{self.psnr:.1f} dB"
        name = f"images, {self.steps} steps (PSNR)"
        return "\n".join([*lines, f"{name:<32} {psnr:>16}  {MINIMUM_PSNR:.0f} dB"])

    def save(self, file: Path) -> None:
        """Write the result as JSON; the PSNR of equal images is null."""
        content = {
            "weights": self.dtype,
            "compute": "float32",
            "tolerance": TOLERANCE,
            "differences": {row.component: row.error for row in self.differences},
            "images": {
                "steps": self.steps,
                "psnr_db": None if np.isinf(self.psnr) else self.psnr,
                "equal": bool(np.isinf(self.psnr)),
            },
            "passed": self.passed,
        }
        with atomic_file(file) as stream:
            stream.write(json.dumps(content, indent=2).encode())


def torch_is_installed() -> bool:
    """Return whether PyTorch is installed, without importing it."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def compare(
    checkpoint: str | Path,
    out: Path,
    *,
    raw: bool = False,
    dtype: str = "float32",
    encoders: Mapping[str, str] | None = None,
) -> Parity:
    """Compare both models in float32 on the same prompts, noise and times.

    Args:
      checkpoint: the exported checkpoint; both models are held in memory.
      out: folder of the export.
      raw: whether raw weights were exported, not EMA weights.
      dtype: of the exported tensors; the JAX model's are rounded to it as well.
      encoders: current paths of text encoders that moved since training.
    """
    import jax

    from lidit_jax.checkpoints.opener import open_model
    from lidit_jax.encoders.relocated import resolve_sources
    from lidit_jax.sampling.opened_model import OpenedModel
    from lidit_jax.sampling.pipeline import Pipeline

    torch_model = load_module(out / MODULE).LIDiT.from_pretrained(out)
    model = open_model(checkpoint, raw=raw)
    params = jax.tree.map(functools.partial(_rounded, dtype=dtype), model.load())
    config = model.config
    sources = resolve_sources(config.encoders.sources, model.provenance.encoders, encoders)
    present = dataclasses.replace(config.encoders, sources=sources)
    config = dataclasses.replace(config, model=in_float32(config.model), encoders=present)
    with jax.default_matmul_precision("highest"):
        differences = _encoders(torch_model, config) + _blocks(torch_model, params, config)
        pipeline = Pipeline(OpenedModel(dataclasses.replace(model, config=config)), params)
        images = pipeline(PROMPTS, seed=0, sampler=module_sampler(config), spacing="trailing")
    theirs = torch_model(list(PROMPTS), seed=0).numpy()
    return Parity(differences, psnr(images, theirs), config.sampling.steps, dtype)


def load_module(file: Path) -> ModuleType:
    """Import an exported model's Python file."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None  # a name that ends in .py has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _rounded(leaf: Any, dtype: str) -> np.ndarray:
    """Round an array to a type of lower precision, and return it as float32.

    With NumPy, because of `HALF_PRECISION` in `lidit_jax.hardware.known_faults`.
    """
    import jax.numpy as jnp

    return np.asarray(leaf).astype(jnp.dtype(dtype)).astype(np.float32)


def in_float32(config: ModelConfig) -> ModelConfig:
    """Return the same network in float32 and without rematerialization."""
    return dataclasses.replace(config, dtype="float32", remat=ModelConfig.remat)


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of uint8 images in dB."""
    error = np.mean(np.square(image.astype(np.float64) - other))
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def _encoders(torch_model: Any, config: Config) -> list[Difference]:
    from lidit_jax.encoders.conditions import PromptEncoders

    conditions, _ = PromptEncoders(config.encoders).encode(PROMPTS)
    rows = []
    for k, (features, mask) in enumerate(zip(*conditions, strict=True)):
        theirs, _ = _torch_features(torch_model, k)
        valid = np.asarray(mask)
        ours = np.asarray(features, np.float32)[valid]
        theirs = theirs.numpy()[valid[:, : theirs.shape[1]]]
        rows.append(Difference(f"encoder {k}", _error(ours, theirs), required=False))
    return rows


def _blocks(torch_model: Any, params: Any, config: Config) -> list[Difference]:
    """Compare every block of the network on PyTorch's text features."""
    import jax
    import torch

    from lidit_jax.models.dit import DiTBlock
    from lidit_jax.models.lidit import LIDiT
    from lidit_jax.models.refiner import CollaborativeRefiner, LinguisticRefiner

    streams = torch_model.config.streams
    features, masks = zip(
        *(_torch_features(torch_model, k) for k in range(len(streams))), strict=True
    )
    prefix_lengths = tuple(len(stream.prefix) for stream in streams)
    side = torch_model.config.sampling.size // torch_model.config.downsample
    shape = (len(PROMPTS), side, side, torch_model.config.channels)
    x_t = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    network, seen = torch_model.network, {}
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
        for name, module in network.named_modules()
    ]
    with torch.no_grad():
        final = network(
            torch.from_numpy(x_t), torch.tensor(_TIMES), features, masks, prefix_lengths
        )
    for hook in hooks:
        hook.remove()

    watched = LinguisticRefiner | CollaborativeRefiner | DiTBlock
    arrays = tuple(tuple(tensor.numpy() for tensor in group) for group in (features, masks))
    prediction, state = jax.jit(
        lambda params, x_t, t, features, masks: LIDiT(config.model).apply(
            {"params": params},
            x_t,
            t,
            features,
            masks,
            prefix_lengths,
            capture_intermediates=lambda module, _: isinstance(module, watched),
            mutable=["intermediates"],
        )
    )(params, x_t, np.array(_TIMES, np.float32), *arrays)
    captured = state["intermediates"]
    rows = []
    for k, mask in enumerate(arrays[1]):
        ours = captured[f"linguistic_refiner_{k}"]["__call__"][0]
        tokens, pooled, _ = seen[f"token_refiners.{k}"]
        rows.append(Difference(f"linguistic refiner {k}", _error(ours.tokens[mask], tokens[mask])))
        if pooled is not None:
            rows.append(Difference(f"linguistic refiner {k}, pooled", _error(ours.pooled, pooled)))
    for k, mask in enumerate(arrays[1]):
        ours = captured["collaborative_refiner"]["__call__"][0][k]
        error = _error(ours[mask], seen["collaborative_refiner"][k][mask])
        rows.append(Difference(f"collaborative refiner, stream {k}", error))
    for i, ours in enumerate(captured["blocks"]["__call__"][0][0]):
        rows.append(Difference(f"DiT block {i}", _error(ours, seen[f"transformer_blocks.{i}"])))
    return [*rows, Difference("prediction", _error(prediction, final))]


def _torch_features(torch_model: Any, k: int) -> tuple[Any, Any]:
    import torch

    limit = torch_model.config.lidit.config.encoders.max_prompt_tokens
    with torch.no_grad():
        return torch_model.encoders[k](PROMPTS, limit)


def _error(ours: Any, theirs: Any) -> float:
    theirs = np.asarray(theirs, np.float64)
    return float(np.abs(np.asarray(ours) - theirs).max() / np.sqrt(np.mean(np.square(theirs))))
