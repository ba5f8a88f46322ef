"""Which files of a folder are pictures, and which text file captions each."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lidit_jax.io.pictures import suffixes

_LITTER = ("__macosx", "@eadir", "thumbs.db", "desktop.ini")
"""What file managers and disks leave in folders, beside hidden files such as `._cat.jpg`."""


@dataclass
class FolderListing:
    """The files of a folder and its subfolders, without hidden ones and litter."""

    captioned: list[tuple[Path, Path | None]] = field(default_factory=list)
    """Each picture with its text file, or None; in the order of their paths."""
    left_out: Counter[str] = field(default_factory=Counter)
    """How many files are neither, by the end of their names: ".heic", ".json"."""
    errors: list[str] = field(default_factory=list)
    """Folders that cannot be read, and links that lead nowhere; each a message."""

    @property
    def left_out_line(self) -> str:
        """What to tell of the files that are left out; empty where there are none."""
        kinds = sorted(self.left_out.items(), key=lambda kind: (-kind[1], kind[0]))
        return ", ".join(f"{count} {suffix}" for suffix, count in kinds)


def list_folder(folder: Path) -> FolderListing:
    """Looks through a folder and its subfolders for pictures and their text files.

    Links to folders are followed, and no folder is read twice. The text file of `IMG_1.JPG` is
    `IMG_1.txt`, or else one whose name differs in upper and lower case only.
    """
    listing, pictures = FolderListing(), suffixes()
    seen: set[tuple[int, int]] = set()
    # Links come last, so that pictures have the names that they have without them.
    folders, links = [folder], []
    while folders or links:
        current = folders.pop() if folders else links.pop()
        try:
            state = current.stat()
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(current) as scan:
                entries = [entry for entry in scan if not _is_litter(entry.name)]
        except OSError as error:
            listing.errors.append(f"{current} cannot be read: allow it ({error.strerror})")
            continue
        files = []
        for entry in entries:
            if not entry.is_dir():
                files.append(entry.name)
            else:
                (links if entry.is_symlink() else folders).append(Path(entry.path))
        _add_files(listing, current, sorted(files), pictures)
    listing.captioned.sort()
    return listing


def _add_files(
    listing: FolderListing, folder: Path, names: list[str], pictures: frozenset[str]
) -> None:
    texts: dict[str, list[Path]] = {}
    for name in names:
        if name.lower().endswith(".txt"):
            texts.setdefault(name[:-4].casefold(), []).append(folder / name)
    captions = set()
    for name in names:
        file = folder / name
        suffix = file.suffix.lower()
        if suffix in pictures:
            if not file.is_file():
                listing.errors.append(f"{file} leads to no file: remove or mend the link")
                continue
            text = _caption_file(file, texts.get(file.stem.casefold(), []))
            captions.add(text)
            listing.captioned.append((file, text))
        elif suffix != ".txt":
            listing.left_out[suffix or "without a suffix"] += 1
    listing.left_out[".txt"] += sum(
        file not in captions for files in texts.values() for file in files
    )
    listing.left_out += Counter()  # takes away what was counted zero times


def _caption_file(picture: Path, texts: list[Path]) -> Path | None:
    """The text file most like a picture's name, of those that differ in case only."""
    if not texts:
        return None
    return min(texts, key=lambda text: (text.stem != picture.stem, text.suffix != ".txt", text))


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER
