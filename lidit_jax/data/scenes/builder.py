"""TFDS dataset of scenes in ArrayRecord files, written and read without TensorFlow.

    folder = write_scenes("data", SceneConfig(size=64, language="en", train_records=50_000))
    source = tfds.builder_from_directory(folder).as_data_source("train")

The data source is random-access, so Grain reads it as it is; TFDS hands text back as bytes.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from lidit_jax.data.scenes.source import VERSION, SceneSource


@dataclass(kw_only=True)
class SceneConfig(tfds.core.BuilderConfig):
    """TFDS configuration of the scenes to write."""

    name: str = ""
    """Folder name, derived from the other fields."""
    size: int = 64
    """Side of the images in pixels, a multiple of 8."""
    language: str = "en"
    """Language of the captions: "en", "zh" or "both"."""
    train_records: int = 50_000
    heldout_records: int = 2_000
    seed: int = 0

    def __post_init__(self):
        self.name = (
            f"{self.size}px_{self.language}_{self.train_records}_{self.heldout_records}_{self.seed}"
        )


class LiditScenes(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of `SceneSource` records with their ground truth: task and objects."""

    VERSION = tfds.core.Version(f"{VERSION}.1.0")
    BUILDER_CONFIGS: ClassVar = [SceneConfig()]
    # Where TFDS would look for the checksums of downloads. There are none, and the search imports
    # importlib_resources, which TFDS does not install.
    code_path = None

    @property
    def _config(self) -> SceneConfig:
        # TFDS falls back on BUILDER_CONFIGS, so there always is one, and of this class.
        assert isinstance(self.builder_config, SceneConfig)
        return self.builder_config

    def _info(self) -> tfds.core.DatasetInfo:
        text, number = tfds.features.Text(), np.float32
        side = self._config.size
        return tfds.core.DatasetInfo(
            builder=self,
            description="Procedural captioned scenes with known truth.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(side, side, 3), encoding_format="png"),
                    "caption": text,
                    "index": np.int64,
                    "task": text,
                    "objects": tfds.features.Sequence(
                        {
                            "color": text,
                            "shape": text,
                            "texture": text,
                            "size": text,
                            "x": number,
                            "y": number,
                            "radius": number,
                        }
                    ),
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        config = self._config
        return {
            split: self._generate_examples(
                SceneSource(split, records, config.size, config.language, config.seed)
            )
            for split, records in (
                ("train", config.train_records),
                ("heldout", config.heldout_records),
            )
        }

    def _generate_examples(self, source: SceneSource) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(len(source)):
            record, scene = source[index], source.scene(index)
            # Encoded here: TFDS would need TensorFlow to encode an array.
            png = io.BytesIO()
            Image.fromarray(record["image"]).save(png, "PNG")
            objects = [dataclasses.asdict(thing) for thing in scene.objects]
            yield index, {**record, "image": png.getvalue(), "task": scene.task, "objects": objects}


def write_scenes(directory: str | Path, config: SceneConfig | None = None) -> Path:
    """Write both splits below `directory` and return the folder that TFDS reads.

    Raises:
      LiditError: when the configuration is invalid.
    """
    builder = LiditScenes(
        data_dir=str(directory), config=config or SceneConfig(), file_format="array_record"
    )
    builder.download_and_prepare()
    return Path(builder.data_path)
