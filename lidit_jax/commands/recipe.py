"""Loading and validation of the recipe named on the command line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lidit_jax.config.schema import Config


def checked_recipe(options: argparse.Namespace) -> Config:
    """Load and check the configuration of --config and its overrides.

    Raises:
      LiditError: when the recipe, a field or a value does not exist or does not fit the others.
    """
    from lidit_jax.config.load import load_recipe
    from lidit_jax.data.source_opening import check_source
    from lidit_jax.sampling.settings import check_defaults

    config = load_recipe(options.config, options.overrides)
    check_defaults(config)
    check_source(config)
    return config
