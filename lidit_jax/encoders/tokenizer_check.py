"""Check, once per tokenizer, that tokens match those of transformers' `AutoTokenizer`.

Importing transformers takes longer than sampling an image, so prompts are tokenized without it. But
`AutoTokenizer` adds normalizers and tokens of a model family that no file contains. The first time
that a tokenizer is used on a machine, both therefore tokenize a set of unusual prompts. If they
differ, the tokenizer as saved by transformers is cached and used from then on.
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
"""Files that `AutoTokenizer` reads; the model's configuration names the family."""
_ADDED_TOKENS = 50
"""Number of added tokens that the comparison tests, each in a prompt of its own."""
_REASON = 300
"""Largest number of characters of an error that are shown."""


@dataclass(frozen=True)
class Verdict:
    """Result of a comparison, cached with the replacement tokenizer if there is one."""

    kind: Literal["same", "replaced", "unread"]
    transformers: str
    """Version of transformers in the comparison."""
    reason: str = ""
    """Why transformers' tokenizer cannot be used; empty if it can."""


def load_tokenizer(folder: Path, max_positions: int | None = None) -> PromptTokenizer:
    """Load the tokenizer of a model, with the same tokens as in transformers.

    A new tokenizer that transformers cannot read is reported in one line on stderr.

    Args:
      folder: folder with `tokenizer.json`, often the model's.
      max_positions: largest number of positions of the model, if limited.

    Raises:
      LiditError: when the tokenizer is missing or damaged, or cannot be cached.
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
            # Without a writable cache, the comparison is repeated the next time.
            if verdict.kind == "replaced":
                raise LiditError(
                    f"the tokenizer of {folder} cannot be kept in {kept} ({error.strerror}): "
                    "set LIDIT_CACHE to a folder that can be written"
                ) from error
    if verdict.kind == "unread":
        print(
            f"{folder / 'tokenizer.json'} is used unchanged, without transformers' "
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
    """Return the cached verdict; None also if another version of transformers may read more."""
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
    """Move a folder into the cache atomically, or use that of a concurrent process."""
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
    """Compare with transformers' tokenizer, which is saved to `out` if it differs."""
    version = _version()
    try:
        with _quiet_transformers() as transformers:
            theirs = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            # A tokenizer in Python, such as SigLIP's, can be compared but not saved.
            backend = getattr(theirs, "backend_tokenizer", None)
            kind = type(ours.backend.model).__name__
            taken = kind if backend is None else type(backend.model).__name__
            if taken != kind:
                return Verdict("unread", version, f"it takes a {kind} tokenizer for {taken}")
            prompts = [*PROBE_PROMPTS, *_added_tokens(ours, theirs)]
            expected = [
                list(theirs(prompt, add_special_tokens=False)["input_ids"]) for prompt in prompts
            ]
    except Exception as error:  # a tokenizer class may raise any error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Verdict("unread", version, reason[:_REASON])
    given = ours.encode(prompts)
    if given == expected:
        return Verdict("same", version)
    if backend is None:
        first = next(p for p, a, b in zip(prompts, given, expected, strict=True) if a != b)
        reason = f"its {type(theirs).__name__} gives other tokens, first for {first!r}"
        return Verdict("unread", version, reason[:_REASON])
    config = folder / "config.json"  # which a pipeline's tokenizer lacks
    named = read_json(config) if config.is_file() else {}
    vocabulary = named.get("vocab_size", sys.maxsize)
    if (highest := max(token for tokens in expected for token in tokens)) >= vocabulary:
        reason = f"it gives token {highest}, and the model has {vocabulary}"
        return Verdict("unread", version, reason)
    backend.save(str(out / _TOKENIZER_FILE))
    saved = _cut_by(ours, out)
    if saved.encode(prompts) != expected or _layout(saved) != _layout(ours):
        (out / _TOKENIZER_FILE).unlink()
        return Verdict("unread", version, "what it saves gives other tokens than it gave itself")
    return Verdict("replaced", version)


def _cut_by(ours: PromptTokenizer, folder: Path) -> PromptTokenizer:
    """Return the tokenizer of another folder with the same begin, end and padding tokens."""
    backend = tokenizers.Tokenizer.from_file(str(folder / _TOKENIZER_FILE))
    return PromptTokenizer(backend, ours.begin, ours.end, ours.pad, ours.max_positions, folder)


def _layout(tokenizer: PromptTokenizer) -> list[str | None]:
    """Return the tokens around a prompt, as text."""
    around = (*tokenizer.begin, tokenizer.end, tokenizer.pad)
    return [tokenizer.backend.id_to_token(token) for token in around]


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[Any]:
    """Yield the transformers module with its warnings silenced."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield transformers
    finally:
        transformers.logging.set_verbosity(verbosity)


def _added_tokens(ours: PromptTokenizer, theirs: Any) -> list[str]:
    """Return prompts with added tokens of either tokenizer, limited to the last ones."""
    found = [token.content for token in ours.backend.get_added_tokens_decoder().values()]
    found += [token.content for token in theirs.added_tokens_decoder.values()]
    return [f"a{token} b" for token in list(dict.fromkeys(found))[-_ADDED_TOKENS:]]
