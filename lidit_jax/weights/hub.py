"""Downloads of selected model files from huggingface.co, cached on disk, and uploads to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from lidit_jax.errors import LiditError

_REPLACED = ("model.safetensors", "model-?????-of-?????.safetensors")
_REPLACED += ("model.safetensors.index.json", "diffusion_pytorch_model.safetensors")
_REPLACED += ("vae/*", "images/samples.png", "images/scenes.png")
"""What a new upload deletes unless it has it too: files of other weights, uploaded earlier."""


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
    except errors.HFValidationError as error:
        raise LiditError(
            f"{hub_id} is neither a folder here nor a name that huggingface.co allows: check the "
            "spelling"
        ) from error
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


def check_token() -> None:
    """Raise `LiditError` unless this machine has a token of the hub."""
    import huggingface_hub

    if huggingface_hub.get_token() is None:
        raise LiditError(
            "there is no token of huggingface.co on this machine: run `hf auth login`, or set "
            "HF_TOKEN"
        )


def upload(
    folder: Path,
    files: Sequence[str],
    hub_id: str,
    *,
    private: bool,
    contents: Mapping[str, bytes] | None = None,
) -> str:
    """Upload files to a model repository, which is created if it does not exist.

    Weights, autoencoder and images of an earlier upload are deleted; other files there stay.

    Args:
      folder: local folder.
      files: paths inside of it.
      hub_id: `owner/name`.
      private: whether only its owner may see a new repository; an existing public one is refused.
      contents: what to upload for some of the files in place of their content.

    Returns:
      The repository's address.

    Raises:
      LiditError: when the hub cannot be reached or refuses; says what to do.
    """
    import huggingface_hub
    from huggingface_hub import errors

    api = huggingface_hub.HfApi()
    try:
        address = api.create_repo(hub_id, private=private or None, exist_ok=True)
        if private and not api.model_info(hub_id).private:
            raise LiditError(
                f"{address} exists and is public: leave out --private, name another repository, or "
                "make it private in its settings"
            )
        changed = contents or {}
        added = [
            huggingface_hub.CommitOperationAdd(name, changed.get(name, folder / name))
            for name in files
        ]
        deleted = [
            huggingface_hub.CommitOperationDelete(name)
            for name in sorted({*api.list_repo_files(hub_id)} - {*files})
            if any(fnmatchcase(name, pattern) for pattern in _REPLACED)
        ]
        api.create_commit(hub_id, [*added, *deleted], commit_message="Upload a model of lidit-jax")
    except errors.HfHubHTTPError as error:
        status, reason = error.response.status_code, str(error.server_message or error)
        if status in (401, 403, 404):
            raise LiditError(
                f"{hub_id}: the hub refuses to let this token write there (HTTP {status}): run "
                "`hf auth login` with a token of an owner that may write"
            ) from error
        raise LiditError(f"{hub_id}: the hub answers HTTP {status}: {_line(reason)}") from error
    except ValueError as error:
        raise LiditError(f"{hub_id}: {_line(str(error))}") from error
    except LiditError:
        raise
    except Exception as error:  # of connections, with no common type in the client's versions
        raise LiditError(
            f"{hub_id}: the hub cannot be reached ({_line(str(error))}): the folder is complete, "
            "run the same command again"
        ) from error
    return str(address)


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
