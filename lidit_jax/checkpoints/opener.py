"""Open trained models by name or path: the packaged demo, exported folders, workdirs, checkpoints.

```python
model = open_model("runs/demo")        # reads the description, no weights
params = model.load(shardings)         # all parameters, straight to their devices
kernel = model.read("output/kernel")   # or one, to convert large models one by one
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lidit_jax.checkpoints.bundle import Bundle, is_bundle
from lidit_jax.checkpoints.orbax import Checkpoints
from lidit_jax.checkpoints.orbax_weights import StoredWeights, explain_read_errors
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.checks import check
from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import PACKAGE_DATA, to_path


@dataclass(frozen=True)
class SavedModel:
    """Trained model on disk: its description, and its weights, which are read on demand."""

    folder: Path
    """The exported folder, or `checkpoints/STEP` of a workdir."""
    config: Config
    provenance: Provenance
    fingerprint: str
    """sha256 of an exported folder's weights; empty for a checkpoint, whose arrays have their own
    checksums."""
    own_autoencoder: Path | None
    """Folder of an exported model's own autoencoder, if it has one; None for a checkpoint."""
    _weights: Bundle | StoredWeights

    @property
    def step(self) -> int | None:
        """Number of updates of the weights; None if unknown."""
        return self.provenance.step

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter by its path, such as "output/linear/kernel"; reads none.

        Raises:
          LiditError: when the weights are damaged.
        """
        return self._weights.shapes

    def read(self, path: str) -> np.ndarray:
        """Return one parameter in float32, equal to that of `load`, after verifying its checksum.

        Raises:
          LiditError: when the parameter is damaged.
        """
        return self._weights.read(path)

    def load(self, shardings: Any = None, *, partly: bool = False) -> Any:
        """Load all parameters, nested, in float32, after verifying their checksums.

        Args:
          shardings: tree of shardings like the parameters', which may lack some.
          partly: whether to leave out those that it lacks.

        Raises:
          LiditError: when the parameters are damaged.
        """
        return self._weights.load(shardings, partly=partly)


def open_model(path: str | Path, *, raw: bool = False) -> SavedModel:
    """Open a trained model without reading its weights.

    Args:
      path: "demo", an exported folder, a workdir (its newest checkpoint), or one of its
        `checkpoints/STEP`.
      raw: whether to open a workdir's raw weights instead of its EMA weights.

    Raises:
      LiditError: when there is no such model, it is damaged, of a newer format, or has no raw
        weights.
    """
    folder = PACKAGE_DATA / "demo" if str(path) == "demo" else to_path(path).expanduser()
    if not is_bundle(folder):
        return _open_checkpoint(folder, "params" if raw else "ema_params")
    if raw:
        raise LiditError(f"{folder} holds averaged weights only: leave out --raw")
    bundle = Bundle(folder)
    return SavedModel(
        folder, bundle.config, bundle.provenance, bundle.fingerprint, folder / "vae", bundle
    )


def _open_checkpoint(folder: Path, name: str) -> SavedModel:
    """Open a workdir's newest checkpoint, or the given one."""
    workdir, step = folder, None
    if folder.parent.name == "checkpoints" and folder.name.isdecimal():
        workdir, step = folder.parent.parent, int(folder.name)
    if not (workdir / "checkpoints").is_dir():
        raise LiditError(
            f"no checkpoint in {workdir}: name a workdir of `lidit train`, an exported folder, or "
            "'demo'"
        )
    with Checkpoints(workdir) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise LiditError(
                f"{workdir} has no complete checkpoint yet: let `lidit train` continue"
            )
        step = steps[-1] if step is None else step
        if step not in steps:
            raise LiditError(f"{workdir} has no checkpoint of step {step}: it has {steps}")
        place = checkpoints.folder / str(step)
        described = checkpoints.metadata(step)
        described["step"] = step
        with explain_read_errors(place):
            config = check(Config.from_dict(described["config"]))
            provenance = Provenance.from_json(described)
        weights = checkpoints.weights(step, name)
    return SavedModel(place, config, provenance, "", None, weights)
