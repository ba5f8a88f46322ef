"""Whether a tokenizer is read as transformers reads it: found out once, and remembered.

Importing transformers takes longer than sampling an image, so prompts are tokenized without it. Its
`AutoTokenizer` knows what no file says: normalizers and added tokens of a family. So it reads each
tokenizer once, when this machine first meets it, and odd prompts show whether both agree. Where
they do not, the tokenizer that transformers saves is kept, and read from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tokenizers

from lidit_jax.encoders.tokenizer import PromptTokenizer
from lidit_jax.encoders.tokenizer_probes import PROBE_PROMPTS
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import cache_dir
from lidit_jax.weights.huggingface import read_json

_FORMAT = 1
_VERDICT_FILE, _TOKENIZER_FILE = "verdict.json", "tokenizer.json"
_DECIDING = (
    _TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
)
"""What `AutoTokenizer` makes a tokenizer from; the model's configuration names its family."""
_ADDED_TOKENS = 50
"""Added tokens of a tokenizer that the comparison puts into prompts of their own."""
_REASON = 300
"""Characters of an error that are told."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison found; kept beside the tokenizer that it may have brought."""

    kind: Literal["same", "replaced", "unread"]
    transformers: str
    """The version that was compared with."""
    reason: str = ""
    """Why transformers' reading cannot be used, where it cannot."""


def load_tokenizer(folder: Path, max_positions: int | None = None) -> PromptTokenizer:
    """The tokenizer of a model, as transformers reads it.

    Of a tokenizer that is new to this machine, and that transformers cannot read, it says so in a
    line of stderr.

    Args:
      folder: of a model, with `tokenizer.json`.
      max_positions: of the model, where they are limited.

    Raises:
      LiditError: when the tokenizer is missing or damaged, or cannot be kept.
    """
    ours = PromptTokenizer.from_folder(folder, max_positions)
    kept = cache_dir() / "tokenizers" / _content_key(folder)
    verdict = _remembered(kept) or _judge(folder, ours, kept)
    return _cut_by(ours, kept) if verdict.kind == "replaced" else ours


def _judge(folder: Path, ours: PromptTokenizer, kept: Path) -> Verdict:
    with tempfile.TemporaryDirectory() as temporary:
        verdict = _compare(folder, ours, Path(temporary))
        (Path(temporary) / _VERDICT_FILE).write_text(json.dumps(asdict(verdict)))
        try:
            _keep(Path(temporary), kept)
        except OSError as error:
            # Without a place to keep it in, the comparison is made again the next time.
            if verdict.kind == "replaced":
                raise LiditError(
                    f"the tokenizer of {folder} cannot be kept in {kept} ({error.strerror}): "
                    "set LIDIT_CACHE to a folder that can be written"
                ) from error
    if verdict.kind == "unread":
        print(
            f"{folder / 'tokenizer.json'} is used as it stands, without transformers' "
            f"AutoTokenizer: {verdict.reason}",
            file=sys.stderr,
        )
    return verdict


def _content_key(folder: Path) -> str:
    digest = hashlib.sha256(str(_FORMAT).encode())
    for name in _DECIDING:
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:32]


def _remembered(kept: Path) -> Verdict | None:
    """The verdict of an earlier comparison; None also where another transformers may read more."""
    try:
        verdict = Verdict(**json.loads((kept / _VERDICT_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    if verdict.kind == "unread" and verdict.transformers != _version():
        return None
    return verdict


def _version() -> str:
    try:
        return importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _keep(made: Path, kept: Path) -> None:
    """Puts a folder into its place at once; what another process put there meanwhile is as good."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{kept.name}.", dir=kept.parent))
    try:
        shutil.copytree(made, temporary, dirs_exist_ok=True)
        temporary.chmod(0o755)
        if _remembered(kept) is None:
            shutil.rmtree(kept, ignore_errors=True)
        os.replace(temporary, kept)
    except OSError:
        if _remembered(kept) is None:
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _compare(folder: Path, ours: PromptTokenizer, out: Path) -> Verdict:
    """Lets transformers read the tokenizer, and leaves it under `out` where it reads another."""
    version = _version()
    try:
        with _quiet_transformers() as transformers:
            theirs = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            kinds = [type(b.model).__name__ for b in (ours.backend, theirs.backend_tokenizer)]
            if kinds[0] != kinds[1]:
                return Verdict("unread", version, f"it takes a {kinds[0]} tokenizer for {kinds[1]}")
            prompts = [*PROBE_PROMPTS, *_added_tokens(ours, theirs)]
            expected = [
                list(theirs(prompt, add_special_tokens=False)["input_ids"]) for prompt in prompts
            ]
    except Exception as error:  # a tokenizer's class may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Verdict("unread", version, reason[:_REASON])
    if ours.encode(prompts) == expected:
        return Verdict("same", version)
    vocabulary = read_json(folder / "config.json").get("vocab_size", sys.maxsize)
    if (highest := max(token for tokens in expected for token in tokens)) >= vocabulary:
        reason = f"it gives token {highest}, and the model has {vocabulary}"
        return Verdict("unread", version, reason)
    theirs.backend_tokenizer.save(str(out / _TOKENIZER_FILE))
    saved = _cut_by(ours, out)
    if saved.encode(prompts) != expected or _layout(saved) != _layout(ours):
        (out / _TOKENIZER_FILE).unlink()
        return Verdict("unread", version, "what it saves gives other tokens than it gave itself")
    return Verdict("replaced", version)


def _cut_by(ours: PromptTokenizer, folder: Path) -> PromptTokenizer:
    """Texts cut into tokens by another folder's tokenizer, and laid out as before."""
    backend = tokenizers.Tokenizer.from_file(str(folder / _TOKENIZER_FILE))
    return PromptTokenizer(backend, ours.begin, ours.end, ours.pad, ours.max_positions, folder)


def _layout(tokenizer: PromptTokenizer) -> list[str | None]:
    """What stands around a prompt, as texts."""
    around = (*tokenizer.begin, tokenizer.end, tokenizer.pad)
    return [tokenizer.backend.id_to_token(token) for token in around]


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[Any]:
    """The module, without its advice on classes, lengths and the lack of PyTorch."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield transformers
    finally:
        transformers.logging.set_verbosity(verbosity)


def _added_tokens(ours: PromptTokenizer, theirs: Any) -> list[str]:
    """Prompts with the added tokens of either reading, the most recent ones of many."""
    found = [token.content for token in ours.backend.get_added_tokens_decoder().values()]
    found += [token.content for token in theirs.added_tokens_decoder.values()]
    return [f"a{token} b" for token in list(dict.fromkeys(found))[-_ADDED_TOKENS:]]
