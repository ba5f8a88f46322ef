"""A user's folder of pictures with captions, as a random-access source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt64
from PIL import Image, ImageOps

from lidit_jax.config.schema import Config
from lidit_jax.data.caption_files import LISTINGS, find_listing, read_caption, read_listing
from lidit_jax.data.digests import file_digest, short_digest
from lidit_jax.data.scenes.render import check_size
from lidit_jax.data.source import ImageSource, SourceKind, Subset
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import local_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_VALIDATION_STRIDE = 20


class FolderSource:
    """Pictures of a folder that any Grain pipeline reads: `len(source)` and `source[i]`.

    Two layouts, subfolders included:

    - a text file beside each picture: `cat.jpg` and `cat.txt`;
    - `captions.jsonl` in the folder, a line a record: `{"file": "cat.jpg", "caption": "a cat"}`; or
      `metadata.jsonl`, as Hugging Face's: `{"file_name": "cat.jpg", "text": "a cat"}`.
      Pictures that it does not name are left out; a picture may have several lines.

    Captions are cleaned as prompts are (`lidit_jax.config.text.clean_text`).

    Every caption and every picture's header is checked when the source is opened; pixels are
    decoded on demand. The order is that of the names, or of the lines.
    """

    def __init__(self, path: str | Path, size: int = 64):
        """Opens a folder.

        Args:
          path: the folder.
          size: side in pixels to which pictures are cropped and resized, a multiple of 8.

        Raises:
          LiditError: when the folder, a caption, a line of the jsonl or a picture is missing or
            unreadable; names the file, and the line.
        """
        self.path, self.size = Path(path), size
        check_size(size)
        if not self.path.is_dir():
            raise LiditError(f"{self.path} is not a folder: give a folder of pictures and captions")
        listing = find_listing(self.path)
        records = read_listing(listing) if listing else _from_text_files(self.path)
        self._records: list[tuple[Path, str]] = list(records)
        if not self._records:
            raise LiditError(
                f"{self.path} holds no captioned picture: add {', '.join(SUFFIXES)} files, "
                f"each with a .txt beside it, or a {LISTINGS[0]}"
            )
        for file in {file for file, _ in self._records}:
            _check_header(file)

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        """Names the folder, the size and a digest of names, file times and captions."""
        digest = hashlib.sha256()
        for file, caption in self._records:
            state = file.stat()
            line = [str(file.relative_to(self.path)), state.st_size, state.st_mtime_ns, caption]
            digest.update(json.dumps(line).encode())
        return (
            f"FolderSource(path={str(self.path)!r}, size={self.size}, "
            f"content={digest.hexdigest()[:16]!r})"
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Record `index`: {"image": uint8 [H, W, 3], "caption": str, "index": int}.

        Raises:
          LiditError: when the picture cannot be decoded; names the file.
        """
        file, caption = self._record(index)
        return {"image": load_square(file, self.size), "caption": caption, "index": int(index)}

    def caption(self, index: int) -> str:
        """The caption of record `index`, without decoding its picture."""
        return self._record(index)[1]

    def digests(self) -> UInt64[np.ndarray, "n 2"]:
        """Of each record, a digest of the picture's name and one of the picture and its caption.

        The folder's own name does not count, so a copy has the same.
        """
        pictures: dict[Path, bytes] = {}
        lines: dict[Path, int] = {}
        rows = []
        for file, caption in self._records:
            # A picture may have several lines: they differ by their number.
            lines[file] = lines.get(file, 0) + 1
            if file not in pictures:
                pictures[file] = file_digest(file)
            name = f"{file.relative_to(self.path).as_posix()}:{lines[file]}"
            rows.append(
                (short_digest(name.encode()), short_digest(pictures[file], caption.encode()))
            )
        whole = b"".join(name + content for name, content in rows)
        return np.frombuffer(whole, "<u8").reshape(-1, 2)

    def _record(self, index: int) -> tuple[Path, str]:
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        return self._records[index]


def open_folder(config: Config, split: str) -> ImageSource:
    """The pictures of `config.data.path`.

    A folder may be too small to spare any, so training sees all of it, and validation every
    twentieth.

    Raises:
      LiditError: when the folder is not named, not on this machine, or not fit for training.
    """
    data = config.data
    if not data.path:
        raise LiditError("config.data.path is empty: name the folder with the images")
    source = FolderSource(local_path(data.path), data.image_size)
    stride = 1 if split == "train" else _VALIDATION_STRIDE
    return Subset(source, range(0, len(source), stride))


FOLDER = SourceKind(
    open_folder, validation=f"loss on every {_VALIDATION_STRIDE}th training picture"
)


def load_square(file: Path, size: int) -> UInt8[np.ndarray, "H W 3"]:
    """The central square of a picture, resized to `size` pixels, upright and on white.

    Raises:
      LiditError: when the picture cannot be decoded.
    """
    try:
        with Image.open(file) as picture:
            upright = ImageOps.exif_transpose(picture)
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright)
            upright = upright.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))


def _from_text_files(folder: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            continue
        text = file.with_suffix(".txt")
        if not text.is_file():
            raise LiditError(f"{file} has no caption: write it to {text.name} beside it")
        yield file, read_caption(text, file.name)


def _check_header(file: Path) -> None:
    try:
        with Image.open(file):
            pass
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> LiditError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return LiditError(f"{file} is not a readable picture: replace or remove it ({reason})")
