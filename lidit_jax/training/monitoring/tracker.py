"""Weights & Biases or trackio, for who has one installed and asks for it."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError

_PROJECT = "lidit-jax"


def check_installed(name: str) -> None:
    """Refuses a tracker that is not there; every process asks, before any of them works.

    Args:
      name: of the package; "none" needs nothing.

    Raises:
      LiditError: with the line that installs it.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise LiditError(
            f"config.training.tracker={name!r} is not installed: pip install {name}, or set "
            "it to 'none'"
        )


class Tracker:
    """One run there; a workdir stays the same run over all its starts."""

    def __init__(self, name: str, workdir: Path, config: Config):
        """Opens the run.

        Args:
          name: of the package: "wandb" or "trackio".
          workdir: its name is that of the run.
          config: shown beside the curves.
        """
        self._module: Any = importlib.import_module(name)
        identity: dict[str, Any] = {"name": workdir.name, "resume": "allow"}
        if name == "wandb":  # trackio finds a run by its name
            identity["id"] = hashlib.sha256(str(workdir).encode()).hexdigest()[:16]
        self._module.init(project=_PROJECT, config=dataclasses.asdict(config), **identity)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Sends the numbers of a step."""
        self._module.log(values, step=step)

    def close(self) -> None:
        """Waits until all is sent."""
        self._module.finish()
