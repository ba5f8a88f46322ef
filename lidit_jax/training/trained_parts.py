"""Parameters of a run by path, and the shares of them and of their work that are trained."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

from lidit_jax.config.schema import Config, ModelConfig
from lidit_jax.models.flops import TextStream
from lidit_jax.training.freezing import check_frozen
from lidit_jax.weights.path_patterns import selected

_PER_IMAGE = ("modulation", "gate", "pooled_embedder", "time_embedder", "size_embedder")
"""Modules that are applied once per image or less, not per token."""


class TrainedParts(NamedTuple):
    """What is trained beside `config.optimizer.freeze`."""

    parameters: int
    """Number of trained parameters."""
    products: float
    """Share of the matrix products with weights whose weights are trained."""


def trained_parts(config: Config, streams: tuple[TextStream, ...], tokens: int) -> TrainedParts:
    """Count what is trained.

    Args:
      config: of the run.
      streams: sizes of the text features.
      tokens: image tokens N.

    Raises:
      LiditError: when `config.optimizer.freeze` does not fit the parameters.
    """
    sizes = parameter_sizes(config, streams)
    freeze = config.optimizer.freeze
    if not freeze:
        return TrainedParts(sum(sizes.values()), 1.0)
    check_frozen(config, sizes)
    trained = sizes.keys() - selected(freeze, sizes)
    work = {path: size * _rows(path, streams, tokens) for path, size in sizes.items()}
    return TrainedParts(
        sum(sizes[path] for path in trained),
        sum(work[path] for path in trained) / sum(work.values()),
    )


def parameter_sizes(config: Config, streams: tuple[TextStream, ...]) -> dict[str, int]:
    """Count the parameters by path, refiners included, by tracing the initialization."""
    # All blocks are alike, and the remat policy does not change their parameters.
    model = dataclasses.replace(config.model, depth=1, remat="none")
    sizes = _traced_sizes(model, config.latent_shape[-1], streams)
    return {
        path: size * (config.model.depth if path.startswith("blocks/") else 1)
        for path, size in sizes.items()
    }


@functools.cache
def _traced_sizes(
    model: ModelConfig, channels: int, streams: tuple[TextStream, ...]
) -> dict[str, int]:
    import flax.linen as nn

    from lidit_jax.models.abstract_inputs import abstract_parameters
    from lidit_jax.models.lidit import LIDiT
    from lidit_jax.weights.parameter_paths import by_path

    parameters = nn.unbox(abstract_parameters(LIDiT(model), streams, channels))
    return {path: leaf.size for path, leaf in by_path(parameters).items()}


def _rows(path: str, streams: tuple[TextStream, ...], tokens: int) -> int:
    """Return the number of vectors of one sample that are multiplied by a kernel."""
    module, *inner, name = path.split("/")
    if name != "kernel":
        return 0
    if {module, *inner} & set(_PER_IMAGE):
        return 1
    if module == "blocks" and inner[0] == "cross_attention" and inner[1] in ("key", "value"):
        return sum(stream.tokens - stream.prefix_length for stream in streams)
    if module.startswith("linguistic_refiner_"):
        return streams[int(module.rpartition("_")[2])].tokens
    if module == "collaborative_refiner":
        return streams[int(inner[0].rpartition("_")[2])].tokens
    return tokens
