"""Listing of a folder: its images, and the caption file of each."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from lidit_jax.io.files import Files
from lidit_jax.io.image_files import suffixes

_NAMED = 3
_suffixes = functools.cache(suffixes)


@dataclass
class FolderListing:
    """Files of a folder and its subfolders, without hidden and system files.

    All names are relative to the folder, with "/".
    """

    captioned: list[tuple[str, str | None]] = field(default_factory=list)
    """Each image with its text file, or None; in the order of names. A broken link counts by
    its name."""
    left_out: list[str] = field(default_factory=list)
    """Files that are neither, in order."""
    errors: list[str] = field(default_factory=list)
    """Messages about folders that cannot be read, and names that cannot be encoded."""
    versions: dict[str, str] = field(default_factory=dict)
    """Per file, a text that changes when the file may have changed."""


def list_folder(files: Files) -> FolderListing:
    """List the images of a folder and its subfolders with their text files.

    Links to folders are followed, and no folder is read twice. The text file of `IMG_1.JPG` is
    `IMG_1.txt`, or else one whose name differs only in case.

    Raises:
      LiditError: when there is no such folder.
    """
    found = files.listing()
    listing = FolderListing(errors=found.errors, versions=found.files)
    folders: dict[str, list[str]] = defaultdict(list)
    for name in sorted([*found.files, *found.broken]):
        folder, _, last = name.rpartition("/")
        folders[folder].append(last)
    for folder, names in folders.items():
        _add_files(listing, f"{folder}/" if folder else "", names)
    listing.captioned.sort()
    listing.left_out.sort()
    return listing


def summary(names: Iterable[str]) -> str:
    """Return counts of files by suffix, largest first: "2 .heic (a.heic, b.heic), 1 .psd (c.psd)".

    Up to three names are given per suffix.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        kinds[PurePosixPath(name).suffix.lower() or "without a suffix"].append(name)
    return ", ".join(
        f"{len(kind)} {suffix} ({', '.join(kind[:_NAMED])}{', …' if len(kind) > _NAMED else ''})"
        for suffix, kind in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    )


def is_image(name: str) -> bool:
    """Return whether a file is decoded as an image, by its suffix."""
    return PurePosixPath(name).suffix.lower() in _suffixes()


def find_caption(image: str, names: Iterable[str]) -> str | None:
    """Return the text file of an image: of names that differ only in case, the most similar.

    Args:
      image: the image's name in its folder.
      names: names of files in the same folder.
    """
    stem = PurePosixPath(image).stem
    texts = [
        name
        for name in names
        if name.lower().endswith(".txt") and name[:-4].casefold() == stem.casefold()
    ]
    return min(
        texts, key=lambda name: (name[:-4] != stem, not name.endswith(".txt"), name), default=None
    )


def _add_files(listing: FolderListing, folder: str, names: list[str]) -> None:
    texts: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if name.lower().endswith(".txt"):
            texts[name[:-4].casefold()].append(name)
    captions = set()
    for name in filter(is_image, names):
        text = find_caption(name, texts.get(PurePosixPath(name).stem.casefold(), ()))
        captions.add(text)
        listing.captioned.append((folder + name, text and folder + text))
    listing.left_out += [
        folder + name for name in names if name not in captions and not is_image(name)
    ]
