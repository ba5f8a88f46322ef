"""The parts of the program that take seconds, replaced by quick ones that check as much."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import Config
from lidit_jax.data.opened_data import open_data
from lidit_jax.data.streamed_data import StreamedData
from lidit_jax.sampling.guided_sampler import GuidedSampler
from lidit_jax.sampling.pipeline import Pipeline
from tests.pytorch.exported import make_bundle
from tests.tiny_encoders import save_encoder

RECIPE = Path(__file__).parents[1] / "tiny_recipe.py"


def save_model(folder: Path) -> Path:
    """The tiny recipe's model with random weights, exported."""
    sources = tuple(str(save_encoder(folder / name, name)) for name in ("llama", "bert"))
    config = load_recipe(str(RECIPE), [f"encoders.sources={sources}"])
    return make_bundle(folder / "model", config)


@contextmanager
def quick_parts(model: Path) -> Iterator[None]:
    """Keeps the model in memory, and draws, trains and measures nothing."""
    pipeline = Pipeline.from_checkpoint(model)

    def draw(self: Any, params: Any, batch: Any, progress: Any = None) -> np.ndarray:
        return np.zeros((len(batch.seeds), *batch.size, 3), np.uint8)

    def train(config: Config, workdir: Path) -> SimpleNamespace:
        if config.data.source == "folder":
            opened = open_data(config, step=8)
            pipeline._encoders.check_lengths([""])
            data = StreamedData(config, opened)
            for _ in data.validation(4, (0, 1)):
                pass
            batches = -(-len(data) // config.training.batch_size)
            for _ in itertools.islice(data.batches(0, workdir), batches):
                pass
        return SimpleNamespace(step=config.training.steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "from_checkpoint", lambda *_, **__: pipeline)
        patch.setattr(Pipeline, "encode", lambda *_: pipeline._unconditional)
        # Records cannot name the weights of a model that is made anew each time.
        patch.setattr(Pipeline, "fingerprint", "")
        patch.setattr(GuidedSampler, "__call__", draw)
        patch.setattr("lidit_jax.training.loop.train", train)
        patch.setattr("lidit_jax.commands.cache._fill", lambda config: None)
        patch.setattr("lidit_jax.evaluation.scenes.evaluate", lambda *_, **__: None)
        for name in ("bench", "tune", "doctor"):
            patch.setattr(f"lidit_jax.commands.{name}.run", lambda options: 0)
        # A comparison with pictures that are not drawn.
        patch.setattr("lidit_jax.pytorch.parity.torch_is_installed", lambda: False)
        report = {"rows": [], "usual": None}
        patch.setattr("lidit_jax.evaluation.samplers.compare_samplers", lambda *_, **__: report)
        patch.setattr("lidit_jax.evaluation.sampler_report.markdown", lambda *_: "")
        yield
