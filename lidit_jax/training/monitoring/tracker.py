"""Optional experiment trackers: Weights & Biases or trackio."""

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
    """Check that a tracker is installed; every process does, before training starts.

    Args:
      name: of the package; "none" needs nothing.

    Raises:
      LiditError: when it is not; with the command that installs it.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise LiditError(
            f"config.training.tracker={name!r} is not installed: pip install {name}, or set "
            "it to 'none'"
        )


class Tracker:
    """Run in a tracker; all starts in a workdir belong to the same run."""

    def __init__(self, name: str, workdir: Path, config: Config):
        """Open the run.

        Args:
          name: of the package: "wandb" or "trackio".
          workdir: folder whose name is the run's.
          config: shown beside the curves.
        """
        self._module: Any = importlib.import_module(name)
        identity: dict[str, Any] = {"name": workdir.name, "resume": "allow"}
        if name == "wandb":  # trackio finds a run by its name
            identity["id"] = hashlib.sha256(str(workdir).encode()).hexdigest()[:16]
        self._module.init(project=_PROJECT, config=dataclasses.asdict(config), **identity)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Send the numbers of a step."""
        self._module.log(values, step=step)

    def close(self) -> None:
        """Wait until all data is sent."""
        self._module.finish()
