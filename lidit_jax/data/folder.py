"""Folder of captioned images as a random-access source."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from lidit_jax.config.schema import Config
from lidit_jax.data.caption_files import LISTINGS, find_listing, read_caption, read_listing
from lidit_jax.data.digests import short_digest
from lidit_jax.data.file_errors import FileErrors
from lidit_jax.data.folder_listing import list_folder, summary
from lidit_jax.data.image_source import ImageSource, SourceKind, Subset
from lidit_jax.data.picture_index import PictureIndex
from lidit_jax.data.scenes.render import check_size
from lidit_jax.errors import LiditError
from lidit_jax.io.files import Files
from lidit_jax.io.image_files import read_fitted, reduction
from lidit_jax.io.paths import cache_dir, local_path, to_path

_VALIDATION_STRIDE = 20
_DECODING = "sRGB, 8 of 16 bits, reduced JPEG"
"""Suffix of the description of images whose pixels differ from those of version 0.1: only their
cached data gets a new name."""


class FolderSource:
    """Images of a folder for any Grain pipeline: `len(source)` and `source[i]`.

    Two layouts, subfolders included:

    - a text file beside each picture: `cat.jpg` and `cat.txt`;
    - `captions.jsonl` in the folder, lines such as `{"file": "cat.jpg", "caption": "a cat"}`; or
      `metadata.jsonl`, as Hugging Face's: `{"file_name": "cat.jpg", "text": "a cat"}`.
      Images without a line are excluded; an image may have several lines.

    Captions are cleaned as prompts are (`lidit_jax.config.text.clean_text`).

    Every caption and every image header is checked when the source is opened; pixels are decoded
    on demand. Records are in the order of the names, or of the lines. Hidden files and files of
    file managers are ignored; links to folders are followed.
    """

    left_out: str
    """Files that are not in the source, counted by kind: "1 .heic (a.heic)"; else empty."""

    def __init__(self, path: str | Path, size: int = 64, prepared: Path | None = None):
        """Open a folder and check its images and captions.

        Args:
          path: the folder.
          size: side in pixels to which images are cropped and resized, a multiple of 8.
          prepared: cache folder: images whose size and time have not changed since an earlier
            start are not opened again. None opens all.

        Raises:
          LiditError: when the folder, a caption, a line of the jsonl or a picture is missing or
            unreadable; states the files, and the line.
        """
        self.path, self.size = Path(path), size
        check_size(size)
        if not self.path.is_dir():
            raise LiditError(f"{self.path} is not a folder: give a folder of pictures and captions")
        listing, errors = find_listing(self.path), FileErrors(self.path)
        self._records: list[tuple[Path, str]] = []
        self.left_out = ""
        if listing:
            self._records += read_listing(listing, errors)
        else:
            self._find_captioned(errors)
        index = PictureIndex(self.path, prepared)
        self._facts = {}
        for file, _ in self._records:
            if file not in self._facts:
                with errors.collect():
                    self._facts[file] = index.facts(file)
        errors.raise_all()
        if not self._records:
            raise LiditError(
                f"{self.path} holds no captioned picture: add pictures, each with a .txt beside "
                f"it, or a {LISTINGS[0]}"
                + (f" (left out: {self.left_out})" if self.left_out else "")
            )
        index.keep(self._facts)

    def _find_captioned(self, errors: FileErrors) -> None:
        found = list_folder(Files(str(self.path)))
        self.left_out = summary(found.left_out)
        errors.add(*found.errors)
        pairs = [
            (self.path / name, None if text is None else self.path / text)
            for name, text in found.captioned
        ]
        for file, text in sorted(pairs):
            with errors.collect():
                self._records.append((file, _caption_beside(file, text)))

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        """Return the folder, the size and a digest of names, file times and captions as text."""
        digest = hashlib.sha256()
        for file, caption in self._records:
            facts = self._facts[file]
            line = [str(file.relative_to(self.path)), facts.size, facts.time, caption]
            if facts.header.converted or reduction(facts.header, (self.size, self.size)) > 1:
                line.append(_DECODING)
            digest.update(json.dumps(line).encode())
        return (
            f"FolderSource(path={str(self.path)!r}, size={self.size}, "
            f"content={digest.hexdigest()[:16]!r})"
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return record `index`: {"image": uint8 [H, W, 3], "caption": str, "index": int}.

        Raises:
          LiditError: when the image cannot be decoded; states the file.
        """
        file, caption = self._record(index)
        image = read_fitted(file, (self.size, self.size)).image
        return {"image": image, "caption": caption, "index": int(index)}

    @property
    def distinct_captions(self) -> int:
        """Number of captions: one per image."""
        return len(self)

    def caption(self, index: int) -> str:
        """Return the caption of record `index`, without decoding its image."""
        return self._record(index)[1]

    def digests(self) -> UInt64[np.ndarray, "n 2"]:
        """Return, per record, digests of the image's name and of the image with its caption.

        They do not depend on the folder's path, so a copy has the same digests.
        """
        lines: dict[Path, int] = {}
        rows = []
        for file, caption in self._records:
            # An image may have several lines, which differ by their number.
            lines[file] = lines.get(file, 0) + 1
            name = f"{file.relative_to(self.path).as_posix()}:{lines[file]}"
            content = short_digest(self._facts[file].digest, caption.encode())
            rows.append((short_digest(name.encode()), content))
        whole = b"".join(name + content for name, content in rows)
        return np.frombuffer(whole, "<u8").reshape(-1, 2)

    def _record(self, index: int) -> tuple[Path, str]:
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        return self._records[index]


def open_folder(config: Config, split: str) -> ImageSource:
    """Open the images of `config.data.path`.

    Small folders cannot spare held-out images, so training uses all of them, and validation every
    twentieth.

    Raises:
      LiditError: when the path is empty, not on this machine, or not usable for training.
    """
    data = config.data
    if not data.path:
        raise LiditError("config.data.path is empty: name the folder with the images")
    prepared = to_path(data.cache_dir) if data.cache_dir else cache_dir() / "data"
    source = FolderSource(local_path(data.path), data.image_size, prepared)
    if source.left_out and split == "train":
        print(f"{data.path}: left out: {source.left_out}", flush=True)
    stride = 1 if split == "train" else _VALIDATION_STRIDE
    return Subset(source, range(0, len(source), stride))


FOLDER = SourceKind(
    open_folder, validation=f"loss on every {_VALIDATION_STRIDE}th training picture"
)


def _caption_beside(file: Path, text: Path | None) -> str:
    if text is None:
        name = file.with_suffix(".txt").name
        raise LiditError(f"{file} has no caption: write it to {name} beside it")
    return read_caption(text, file.name)
