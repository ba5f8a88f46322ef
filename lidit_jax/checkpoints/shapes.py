"""Check that a saved model has exactly the parameters of its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lidit_jax.checkpoints.opener import SavedModel
from lidit_jax.config.schema import ModelConfig
from lidit_jax.errors import LiditError
from lidit_jax.weights.parameter_paths import by_path
from lidit_jax.weights.placement import first_names


def parameter_shapes(
    config: ModelConfig,
    feature_widths: Sequence[int],
    channels: int,
    layer_counts: Sequence[int] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter of `LIDiT(config)` by its path, without allocating.

    Args:
      config: configuration of the network.
      feature_widths: width of each stream's features, as the network projects them.
      channels: latent channels C.
      layer_counts: number of encoder layers that each stream combines; None for one each.
    """
    import flax.linen as nn

    from lidit_jax.models.abstract_inputs import abstract_parameters
    from lidit_jax.models.flops import TextStream
    from lidit_jax.models.lidit import LIDiT

    counts = layer_counts or [1] * len(feature_widths)
    if config.refiner.layer_mix == "concatenate":  # its layers have no parameters of their own
        counts = [1] * len(counts)
    streams = [
        TextStream(width, tokens=1, prefix_length=0, layers=layers)
        for width, layers in zip(feature_widths, counts, strict=True)
    ]
    params = nn.unbox(abstract_parameters(LIDiT(config), streams, channels))
    return {path: leaf.shape for path, leaf in by_path(params).items()}


def feature_widths(
    config: ModelConfig, shapes: Mapping[str, Sequence[int]], streams: int
) -> list[int]:
    """Return the width D_k of each stream's features, from the shapes of a model's parameters.

    Raises:
      KeyError: when a parameter is missing.
    """
    first = "projection/up" if config.refiner.projection == "mlp" else "projection"
    return [shapes[f"linguistic_refiner_{k}/{first}/kernel"][0] for k in range(streams)]


def check_shapes(model: SavedModel) -> None:
    """Check that a saved model has exactly the parameters of its configuration.

    Raises:
      LiditError: when parameters are missing, unexpected or of another shape, which it names.
    """
    config, found = model.config.model, model.shapes
    try:
        widths = feature_widths(config, found, len(model.provenance.encoders))
        channels = found["patch_embedder/kernel"][0] // config.patch**2
    except KeyError as error:
        raise LiditError(f"{model.folder} lacks the parameter {error}: copy it again") from error
    wanted = parameter_shapes(config, widths, channels, model.provenance.layer_counts)
    compare_shapes(str(model.folder), wanted, found)


def compare_shapes(
    place: str, wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]
) -> None:
    """Raise `LiditError` with all parameters that differ."""
    problems = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of the wrong shape": [
            f"{name} is {list(found[name])}, not {list(shape)}"
            for name, shape in wanted.items()
            if name in found and tuple(found[name]) != tuple(shape)
        ],
    }
    if any(problems.values()):
        text = "; ".join(
            f"{len(names)} {kind}: {first_names(names)}"
            for kind, names in problems.items()
            if names
        )
        raise LiditError(f"{place} does not fit its configuration: {text}")
