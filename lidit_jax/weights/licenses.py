"""Licenses of public models, from a table or from their own model cards."""

from __future__ import annotations

import re
from pathlib import Path

_KNOWN = tuple(
    (re.compile(pattern, re.IGNORECASE), license_name)
    for pattern, license_name in (
        (r"smollm2|minilm|HuggingFaceTB/SmolLM[23]-.*", "apache-2.0"),
        (r"Qwen/Qwen3-.*", "apache-2.0"),
        (r"Qwen/Qwen2\.5-(0\.5|1\.5|7|14|32)B(-Instruct)?", "apache-2.0"),
        (r"Qwen/Qwen2\.5-3B(-Instruct)?", "qwen-research"),
        (r"google/(flan-t5|t5-v1_1)-.*", "apache-2.0"),
        (r"google/gemma-[23]-.*", "gemma"),
        (r"meta-llama/Meta-Llama-3-.*", "llama3"),
        (r"meta-llama/Llama-3\.1-.*", "llama3.1"),
        (r"meta-llama/Llama-3\.2-.*", "llama3.2"),
        (r"mistralai/Mistral-7B-.*", "apache-2.0"),
        (r"llava-hf/llava-interleave-qwen-.*", "tongyi-qianwen-research"),
        (r"black-forest-labs/FLUX\.1-schnell", "apache-2.0"),
        (r"PixArt-alpha/PixArt-(XL|Sigma-XL)-2-1024-MS", "openrail++"),
    )
)
"""Patterns of packaged names and hub ids, with the licenses that their pages state."""


def license_of(source: str) -> str:
    """Return the license of a model, or "unknown".

    A model card takes precedence over the table: that of a local folder, or of a hub id whose card
    was downloaded.

    Args:
      source: name of a packaged model, folder, file or hub id.
    """
    return _of_card(source) or next(
        (name for pattern, name in _KNOWN if pattern.fullmatch(source)), "unknown"
    )


def _of_card(source: str) -> str:
    """Return the license in the metadata of a model's README.md; empty if it has none."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    card = Path(source).expanduser() / "README.md"
    if not card.is_file():
        try:
            cached = huggingface_hub.try_to_load_from_cache(source, "README.md")
        except HFValidationError:  # a local file or folder
            return ""
        if not isinstance(cached, str):
            return ""
        card = Path(cached)
    try:
        metadata = huggingface_hub.metadata_load(card) or {}
    except Exception:  # the parser's errors have no common type; its author may have erred
        return ""
    stated = metadata.get("license")
    name = metadata.get("license_name") if stated == "other" else stated
    return str(name or stated or "")
