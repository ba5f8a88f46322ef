"""Images in one folder per class, as in ImageNet: "a photo of {class}"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial

from lidit_jax.config.text import clean_text, split_lines
from lidit_jax.data.file_errors import FileErrors
from lidit_jax.data.folder_listing import is_image, summary
from lidit_jax.data.sources.class_captions import class_caption
from lidit_jax.data.sources.image_chunks import chunk_of, chunk_shards
from lidit_jax.data.sources.protocol import CAPTION, Place, Record, ScannedRecord, Shard
from lidit_jax.errors import LiditError
from lidit_jax.io.files import Files, Listing

NAMES = ("classes.txt", "LOC_synset_mapping.txt")
"""Files with a line `FOLDER NAME, OTHER NAME, …` per class; the first one present is used."""
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_WORDNET_ID = re.compile(r"n\d{8}")


class ClassFolders:
    """Images whose folder is their class: `tabby_cat/1.jpg` is "a photo of tabby cat".

    The class is the first folder of an image's path. Its name is the first one in its line of
    `classes.txt` or of ImageNet's `LOC_synset_mapping.txt` beside the folders.
    """

    def __init__(self, path: str):
        """Set the path; no file is read yet.

        Args:
          path: the folder with the classes' folders, of this machine or of a bucket.
        """
        self._files = Files(path)

    def __reduce__(self) -> tuple[type[ClassFolders], tuple[str]]:
        return ClassFolders, (self._files.root,)

    def __repr__(self) -> str:
        return f"classes:{self._files.root}"

    def shards(self) -> Sequence[Shard]:
        """Return shards of at most 10,000 images each.

        Raises:
          LiditError: when there is no class with an image, or a folder cannot be read.
        """
        if not self._images:
            raise LiditError(
                f"{self._files.root} holds no CLASS/IMAGE.jpg: put the images of each class "
                "into a folder that has its name"
            )
        folders = {name.partition("/")[0] for name in self._images}
        if folders <= _SPLITS:
            one = min(folders)
            raise LiditError(
                f"{self._files.root} holds splits, no classes: name one of them: "
                f"classes:{self._files.named(one)}"
            )
        versions = self._listing.files
        # The captions contain its names.
        table = "".join(versions.get(name, "") for name in NAMES)
        shards = chunk_shards(self._images, versions)
        return [Shard(shard.name, f"{shard.version}{table}") for shard in shards]

    def scan(self, shard: Shard) -> Iterator[ScannedRecord]:
        """Yield the images of a shard, in the order of their names."""
        for name in chunk_of(self._images, shard):
            try:
                captions, problem = self._captions(name), ""
            except LiditError as error:
                captions, problem = {}, str(error)
            yield ScannedRecord(
                name, 0, 0, partial(self._files.open, name), captions, problem=problem
            )

    def read(self, place: Place) -> Record:
        """Read one image. Raises `LiditError` when it cannot be read."""
        return Record(self._files.read(place.key), self._captions(place.key))

    def read_captions(self, place: Place) -> Mapping[str, str]:
        """Return the caption of one image. Raises `LiditError` when its class has no name."""
        return self._captions(place.key)

    def left_out(self) -> str:
        """Return counts by kind and examples of files that are no image of a class; else ""."""
        return summary(set(self._listing.files) - set(self._images) - set(NAMES))

    @cached_property
    def _listing(self) -> Listing:
        listing, errors = self._files.listing(), FileErrors(self._files.root)
        errors.add(*listing.errors)
        errors.raise_all()
        return listing

    @cached_property
    def _images(self) -> list[str]:
        names = sorted([*self._listing.files, *self._listing.broken])
        return [name for name in names if "/" in name and is_image(name)]

    @cached_property
    def _names(self) -> dict[str, str]:
        """Return the names of the classes, by folder."""
        table = next((name for name in NAMES if self._files.has(name)), None)
        if table is None:
            return {}
        try:
            lines = split_lines(self._files.read(table))
        except UnicodeDecodeError as error:
            raise LiditError(
                f"{self._files.named(table)} is not UTF-8 text: save it as UTF-8"
            ) from error
        names = {}
        for number, line in enumerate(lines, start=1):
            folder, _, called = clean_text(line).partition(" ")
            name = called.partition(",")[0].strip()
            if folder and not name:
                raise LiditError(
                    f"{self._files.named(table)}, line {number}: write the folder of a class and "
                    'its name: "n01440764 tench"'
                )
            if folder:
                names[folder] = name
        return names

    def _captions(self, image: str) -> dict[str, str]:
        folder = image.partition("/")[0]
        name = self._names.get(folder, folder)
        if folder not in self._names and _WORDNET_ID.fullmatch(folder):
            raise LiditError(
                f"{self._files.named(folder)} is named by a number of WordNet: add "
                f'{NAMES[0]} beside it, with a line "{folder} NAME" for each class'
            )
        return {CAPTION: class_caption(name)}
