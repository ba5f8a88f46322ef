"""Image folder with caption files or one listing, as a record source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import PurePosixPath

from lidit_jax.data.file_errors import FileErrors
from lidit_jax.data.folder_listing import FolderListing, find_caption, list_folder, summary
from lidit_jax.data.sources.caption_listings import LISTINGS, CaptionListing
from lidit_jax.data.sources.columns import caption_text
from lidit_jax.data.sources.image_chunks import chunk_of, chunk_shards
from lidit_jax.data.sources.protocol import CAPTION, Place, Record, ScannedRecord, Shard
from lidit_jax.errors import LiditError
from lidit_jax.io.files import Files


class Folder:
    """Images of a folder of this machine or of a bucket, subfolders included.

    Two layouts:

    - `captions.jsonl`, `metadata.jsonl`, `captions.csv` or `metadata.csv` in the folder, with
      `file` or `file_name` and any columns of captions and numbers;
    - else a text file beside each image: `cat.jpg` and `cat.txt`.
    """

    def __init__(self, path: str):
        """Check for a listing; nothing else is read yet.

        Args:
          path: the folder.
        """
        self._files = Files(path)
        listing = next((name for name in LISTINGS if self._files.has(name)), None)
        self._layout = CaptionListing(self._files, listing) if listing else _TextBeside(self._files)

    def __repr__(self) -> str:
        return f"folder:{self._files.root}"

    def shards(self) -> Sequence[Shard]:
        """Return shards of at most 10,000 images each.

        Raises:
          LiditError: when there is no image, or a folder cannot be read.
        """
        return self._layout.shards()

    def scan(self, shard: Shard) -> Iterator[ScannedRecord]:
        """Yield the images of a shard, in the order of their names, or of the lines."""
        return self._layout.scan(shard)

    def read(self, place: Place) -> Record:
        """Read one image and its captions. Raises `LiditError` when they cannot be read."""
        return self._layout.read(place)

    def read_captions(self, place: Place) -> Mapping[str, str]:
        """Read the captions of one image. Raises `LiditError` when they cannot be read."""
        return self._layout.read_captions(place)

    def left_out(self) -> str:
        """Return counts by kind and examples of files that are not in the source; else ""."""
        return self._layout.left_out()


class _TextBeside:
    """Images, each with a text file beside it."""

    def __init__(self, files: Files):
        self._files = files

    def __reduce__(self) -> tuple[type[_TextBeside], tuple[Files]]:
        return _TextBeside, (self._files,)

    def shards(self) -> Sequence[Shard]:
        if not self._found.captioned:
            left_out = self.left_out()
            raise LiditError(
                f"{self._files.root} holds no image: add images, each with a .txt beside it, "
                f"or a {LISTINGS[0]}" + (f" (left out: {left_out})" if left_out else "")
            )
        versions = dict(self._found.versions)
        for image, text in self._found.captioned:
            # A changed text also changes the record.
            versions[image] = f"{versions.get(image, '')} {text and versions.get(text)}"
        return chunk_shards(self._names, versions)

    def scan(self, shard: Shard) -> Iterator[ScannedRecord]:
        for name in chunk_of(self._names, shard):
            try:
                captions, problem = self._captions(name, self._texts[name]), ""
            except LiditError as error:
                captions, problem = {}, str(error)
            yield ScannedRecord(
                name, 0, 0, partial(self._files.open, name), captions, problem=problem
            )

    def read(self, place: Place) -> Record:
        captions = self.read_captions(place)
        return Record(self._files.read(place.key), captions)

    def read_captions(self, place: Place) -> dict[str, str]:
        text = f"{place.key.removesuffix(PurePosixPath(place.key).suffix)}.txt"
        try:
            return self._captions(place.key, text)
        except LiditError:
            folder, _, name = place.key.rpartition("/")
            found = find_caption(name, _names_inside(self._files.root, folder))
            text = found and (f"{folder}/{found}" if folder else found)
            return self._captions(place.key, text)

    def left_out(self) -> str:
        return summary(self._found.left_out)

    @cached_property
    def _found(self) -> FolderListing:
        found, errors = list_folder(self._files), FileErrors(self._files.root)
        errors.add(*found.errors)
        errors.raise_all()
        return found

    @cached_property
    def _texts(self) -> dict[str, str | None]:
        return dict(self._found.captioned)

    @cached_property
    def _names(self) -> list[str]:
        return [*self._texts]

    def _captions(self, image: str, text: str | None) -> dict[str, str]:
        if text is None:
            beside = PurePosixPath(image).with_suffix(".txt").name
            raise LiditError(
                f"{self._files.named(image)} has no caption: write it to {beside} beside it"
            )
        where = self._files.named(text)
        caption = caption_text(self._files.read(text), where)
        if not caption:
            raise LiditError(f"{where} is empty: write the caption of {image} into it")
        return {CAPTION: caption}


@lru_cache(64)
def _names_inside(root: str, folder: str) -> list[str]:
    """Return the files of a subfolder, for captions whose names differ in case."""
    return Files(root).inside(folder)
