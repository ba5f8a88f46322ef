"""Emoji of Google's font Noto Color Emoji, with their names in English and Chinese."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from lidit_jax.data.sources.protocol import Place, Record, ScannedRecord, Shard
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import local_path

FONT = "NotoColorEmoji.ttf"
_FOLDERS = (
    "~/.local/share/fonts",
    "~/.fonts",
    "/usr/local/share/fonts",
    "/usr/share/fonts",
    "~/Library/Fonts",
    "/Library/Fonts",
)
_VARIATION = "\ufe0f"
"""Variation selector for the color image of a character; the font does not need it."""
_SKIN = re.compile(r"_((?:light|medium-light|medium|medium-dark|dark)_skin_tone)")
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]{2}|\U0001f3f4[\U000e0020-\U000e007f]+")


class Emoji:
    """Emoji images with a name, 136 x 128 pixels, with captions `en` and `zh`.

    Variants by skin tone and gender are separate records if their images differ. Emoji that share
    an image, such as the flags of Norway and Bouvet Island, are one record, with the name of the
    shortest sequence of characters, then of the shortest name.
    """

    def __init__(self, path: str = ""):
        """Set the path; no file is read yet.

        Args:
          path: the font's file; empty for the installed one.

        Raises:
          LiditError: when `emoji` or `fontTools` is not installed, or the path is a URL.
        """
        for package in ("emoji", "fontTools"):
            if importlib.util.find_spec(package) is None:
                raise LiditError(f"emoji: needs {package}: pip install 'lidit-jax[emoji]'")
        self._path = path
        if path:
            local_path(path)

    def __reduce__(self) -> tuple[type[Emoji], tuple[str]]:
        return Emoji, (self._path,)

    def __repr__(self) -> str:
        return f"emoji:{self._path}"

    def shards(self) -> Sequence[Shard]:
        """Return the font. Raises `LiditError` when it is not installed."""
        state = self._font.stat()
        names = importlib.metadata.version("emoji")
        return [Shard(FONT, f"{state.st_size}-{state.st_mtime_ns}-{names}")]

    def scan(self, shard: Shard) -> Iterator[ScannedRecord]:
        """Yield the emoji, in the order of their code points."""
        for number, (key, record) in enumerate(self._emoji.records.items()):
            opened = partial(io.BytesIO, record.image)
            yield ScannedRecord(key, number, 0, opened, record.captions)

    def read(self, place: Place) -> Record:
        """Read one emoji. Raises `LiditError` when the font does not have it."""
        if place.key not in self._emoji.records:
            raise LiditError(f"{self._font} no longer holds {place.key}: index it again")
        return self._emoji.records[place.key]

    def left_out(self) -> str:
        """Return how many named emoji have no record of their own, and why."""
        return (
            f"{self._emoji.twins} emoji with the image of another, "
            f"{self._emoji.missing} without an image in the font"
        )

    @cached_property
    def _font(self) -> Path:
        if self._path:
            if not os.path.isfile(self._path):
                raise LiditError(f"{self._path} does not exist: name the file {FONT}")
            return Path(self._path)
        for folder in _FOLDERS:
            if found := sorted(Path(folder).expanduser().rglob(FONT)):
                return found[0]
        raise LiditError(
            f"{FONT} is not installed: apt install fonts-noto-color-emoji, or name its file: "
            "emoji:PATH"
        )

    @cached_property
    def _emoji(self) -> _Emoji:
        images, groups, missing = _Bitmaps(self._font), dict[bytes, list[str]](), 0
        names = _names()
        for characters in names:
            if image := images.of(characters):
                groups.setdefault(image, []).append(characters)
            else:
                missing += 1
        chosen = {
            min(same, key=lambda one: (len(one), len(names[one]["en"]), one)): image
            for image, same in groups.items()
        }
        records = {_key(one): Record(chosen[one], names[one]) for one in sorted(chosen)}
        twins = sum(map(len, groups.values())) - len(records)
        return _Emoji(records, twins, missing)


class _Emoji(NamedTuple):
    records: dict[str, Record]
    """Records by code points, as "1f468-200d-1f692"."""
    twins: int
    """Number of emoji that share the image of another record."""
    missing: int
    """Number of emoji that are newer than the font."""


class _Bitmaps:
    """Bitmaps of a font, by character sequence."""

    def __init__(self, path: Path):
        from fontTools.ttLib import TTFont

        try:
            font = TTFont(path, lazy=True)
            tables = set(font.keys())
            if "CBDT" in tables:
                self._glyphs: dict[int, str] = font.getBestCmap() or {}
                self._bitmaps: dict[str, Any] = font["CBDT"].strikeData[0]
                self._joined = _ligatures(font) if "GSUB" in tables else {}
        # Damaged tables lead to exceptions of many types in fontTools.
        except Exception as error:
            raise LiditError(
                f"{path} is no font, or a damaged one: install fonts-noto-color-emoji ({error})"
            ) from error
        if "CBDT" not in tables:
            raise LiditError(
                f"{path} holds drawings, no bitmaps (CBDT): name the file {FONT} of Debian's "
                "fonts-noto-color-emoji"
            )

    def of(self, characters: str) -> bytes | None:
        """Return the PNG of an emoji; None if the font has none."""
        glyphs = [self._glyphs.get(ord(c), "") for c in characters if c != _VARIATION]
        while len(glyphs) > 1:
            spans = (
                (start, start + length)
                for length in range(len(glyphs), 1, -1)
                for start in range(len(glyphs) - length + 1)
            )
            span = next((s for s in spans if tuple(glyphs[slice(*s)]) in self._joined), None)
            if span is None:
                return None
            glyphs[slice(*span)] = [self._joined[tuple(glyphs[slice(*span)])]]
        bitmap = self._bitmaps.get(glyphs[0])
        return None if bitmap is None else bytes(bitmap.imageData)


def _ligatures(font: Any) -> dict[tuple[str, ...], str]:
    """Return the glyphs of character sequences."""
    joined = dict[tuple[str, ...], str]()
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            table = getattr(table, "ExtSubTable", table)
            for first, ligatures in getattr(table, "ligatures", {}).items():
                for ligature in ligatures:
                    joined.setdefault((first, *ligature.Component), ligature.LigGlyph)
    return joined


def _names() -> dict[str, Mapping[str, str]]:
    """Return the names of all emoji in the form that Unicode recommends."""
    import emoji

    emoji.config.load_language("zh")
    names = dict[str, Mapping[str, str]]()
    for characters, described in emoji.EMOJI_DATA.items():
        if described["status"] == emoji.STATUS["fully_qualified"]:
            english = _SKIN.sub(r", \1", described["en"].strip(":")).replace("_", " ")
            captions = {"en": english}
            if "zh" in described:
                captions["zh"] = described["zh"].strip(":").replace("_", "：")
            if _FLAG.fullmatch(characters):
                captions = {
                    column: f"flag of {name}" if column == "en" else f"{name}旗"
                    for column, name in captions.items()
                }
            names[characters] = captions
    return names


def _key(characters: str) -> str:
    return "-".join(f"{ord(character):x}" for character in characters)
