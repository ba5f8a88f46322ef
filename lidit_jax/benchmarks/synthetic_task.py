"""The text-to-image task on made-up data: the real network and loss, nothing to prepare."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lidit_jax.benchmarks.synthetic import empty_prompt, make_batch
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.schema import Config
from lidit_jax.diffusion import process as processes
from lidit_jax.encoders.conditions import TextConditions
from lidit_jax.models import LIDiT
from lidit_jax.models.flops import TextStream
from lidit_jax.training.lidit_task import Frozen, LIDiTTask


class SyntheticTask(LIDiTTask):
    """Takes the place of `LIDiTTask` in a benchmark."""

    def __init__(self, config: Config, streams: Sequence[TextStream], records: int = 1):
        self._config, self._model = config, LIDiT(config.model)
        self._training_model = LIDiT(config.model, config.training.matmul)
        self._process = processes.from_config(config.diffusion)
        self._crop = tuple(stream.crop for stream in streams)
        batch = make_batch(config, streams, records)
        self.training_records = [
            jax.tree.map(lambda leaf, i=i: leaf[i], batch) for i in range(records)
        ]
        self.validation_records = self.training_records[:1]
        null = empty_prompt(streams)
        self.frozen = Frozen(TextConditions(null["features"], null["masks"]))
        self.provenance = Provenance()
        self.training_flops = None

    def sample_images(self, params: Any, frozen: Frozen) -> tuple[np.ndarray, list[str]]:
        """One black pixel."""
        return np.zeros((1, 1, 1, 3), np.uint8), [""]
