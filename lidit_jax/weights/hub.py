"""Downloads of selected model files from huggingface.co, cached on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lidit_jax.errors import LiditError


def is_hub_id(source: str) -> bool:
    """Return whether a string has the form `owner/name`."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) is not None


def download(hub_id: str, patterns: Sequence[str]) -> Path:
    """Download a model unless it is cached, and return its local folder.

    Args:
      hub_id: `owner/name`.
      patterns: globs of the required files; must not include pickled ones.

    Raises:
      LiditError: when it is gated, does not exist or cannot be reached; says what to do.
    """
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=list(patterns)))
    except errors.GatedRepoError as error:
        raise LiditError(
            f"{hub_id} is gated: accept its license on https://huggingface.co/{hub_id}, "
            "then run `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise LiditError(
            f"{hub_id} is neither a folder here nor a model on huggingface.co: check the spelling, "
            "or run `hf auth login` if it is private"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as error:
        raise LiditError(
            f"{hub_id} is not in the local cache and huggingface.co cannot be reached: "
            "go online, or copy the model and give its folder"
        ) from error
