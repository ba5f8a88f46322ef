"""Frozen parameters of a run, `config.optimizer.freeze`: checks and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.weights.path_patterns import check_patterns, covering, selected


def check_frozen(config: Config, params: Mapping[str, Any]) -> None:
    """Check that every pattern freezes something, and that something is left to train.

    Args:
      config: of the run.
      params: its parameters, or their shapes, by path.

    Raises:
      LiditError: when a pattern matches no parameter, or all are frozen.
    """
    freeze = config.optimizer.freeze
    check_patterns("config.optimizer.freeze", freeze, params)
    if freeze and len(selected(freeze, params)) == len(params):
        raise LiditError(
            f"config.optimizer.freeze={freeze} freezes all {len(params)} parameters: leave some "
            "to train"
        )


def trained_summary(config: Config, params: Mapping[str, Any]) -> list[str]:
    """Return a log line about trained and frozen parameters; none when all are trained."""
    if not config.optimizer.freeze:
        return []
    frozen = selected(config.optimizer.freeze, params)
    sizes = {path: math.prod(leaf.shape) for path, leaf in params.items()}
    total = sum(sizes.values())
    trained = total - sum(sizes[path] for path in frozen)
    names = ", ".join(covering(frozen, params))
    return [f"trains {_millions(trained)} of {_millions(total)} parameters; frozen: {names}"]


def _millions(count: int) -> str:
    if count < 100_000:
        return f"{count:,}"
    return f"{count / 1e6:,.1f} M" if count < 100_000_000 else f"{count / 1e6:,.0f} M"
