"""Initialization of the linguistic refiners from a trained one of another project."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.pytorch.hunyuan_refiner import ImportedRefiner
from lidit_jax.weights.parameter_paths import by_path

_STREAM = "linguistic_refiner_"


def refiner_parameters(
    refiner: ImportedRefiner, config: Config, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """Return the trained refiner's parameters for each linguistic refiner of the same shapes.

    Only streams whose features have the width that it was trained on use it.

    Args:
      refiner: result of `lidit convert from-hf`.
      config: of the run; its `training.init_from` names the refiner.
      shapes: of all parameters of the run's model, by path.

    Returns:
      Parameters by their path in the model.

    Raises:
      LiditError: when the configuration's refiners differ from it, or no encoder has features of
        its width.
    """
    place = f"config.training.init_from={config.training.init_from!r}"
    wrong = [
        f"config.{name}={value!r}"
        for name, value in refiner.settings.items()
        if functools.reduce(getattr, name.split("."), config) != value
    ]
    if wrong:
        raise LiditError(f"{place} holds a refiner for other settings: set {', '.join(wrong)}")
    trained = by_path(refiner.params)
    wanted = {path: tuple(leaf.shape) for path, leaf in trained.items()}
    streams: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        stream, _, path = name.partition("/")
        if stream.startswith(_STREAM):
            streams.setdefault(stream, {})[path] = tuple(shape)
    fitting = [stream for stream, own in streams.items() if own == wanted]
    if not fitting:
        widths = ", ".join(str(own["projection/kernel"][0]) for own in streams.values())
        raise LiditError(
            f"{place} holds a refiner for features of width {refiner.feature_width}, those of "
            f"config.encoders.sources have {widths}: name an encoder of that width"
        )
    return {f"{stream}/{path}": leaf for stream in fitting for path, leaf in trained.items()}
